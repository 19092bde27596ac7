import type { Logger } from "../logger.js";
import type { BalancedRegistration, Dispatcher, WorkerRegistration } from "../contract/registration.js";
import type { Storage } from "../contract/storage.js";

export interface WorkerDefaults {
  /** Jobs handled at the same time on this node. Default 10. */
  readonly concurrency: number;
  /** Default 30000. */
  readonly leaseMs: number;
  /** Default 5. */
  readonly maxAttempts: number;
  /** Default 1000. */
  readonly retryDelayMs: number;
  /** Longest time between looks at the tables where no wake-up came. Default 1000. */
  readonly pollIntervalMs: number;
}

export interface WorkerEngineOptions {
  readonly storage: Storage;
  readonly dispatcher: Dispatcher;
  readonly nodeId: string;
  readonly log: Logger;
  readonly defaults: WorkerDefaults;
}

export interface WorkerEngine {
  /** Remembers groups in the database, then serves them. Returns the detachment, which waits for jobs under way. */
  attach(registrations: readonly (WorkerRegistration | BalancedRegistration)[]): Promise<() => Promise<void>>;
  /** Begins to claim. */
  start(): void;
  /** Jobs may be waiting in these lanes. */
  wake(lanes: readonly string[]): void;
  /** Claims no more, and gives prefetched jobs back. */
  drain(): Promise<void>;
  /** Names of the jobs under way: `queue#id`. */
  inFlight(): readonly string[];
  /** After `drain`: gives up the leases of what still runs, and closes timers. */
  stop(): Promise<void>;
}

export function createWorkerEngine(_options: WorkerEngineOptions): WorkerEngine {
  throw new Error("stub");
}
