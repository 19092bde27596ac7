import type { Logger } from "../logger.js";
import type { CronRegistration, Dispatcher } from "../contract/registration.js";
import type { Storage } from "../contract/storage.js";

export interface SchedulerOptions {
  readonly storage: Storage;
  readonly dispatcher: Dispatcher;
  readonly log: Logger;
}

export interface Scheduler {
  /** Throws `MeshConfigurationError` for a schedule or time zone that croner refuses. */
  add(registration: CronRegistration): void;
  start(): Promise<void>;
  /** No more ticks; resolves when those under way have ended. */
  stop(): Promise<void>;
  inFlight(): readonly string[];
}

export function createScheduler(_options: SchedulerOptions): Scheduler {
  throw new Error("stub");
}
