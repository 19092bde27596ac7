import type { Logger } from "../logger.js";
import type { Outbox } from "../contract/messaging.js";
import type { Storage } from "../contract/storage.js";

export interface OutboxOptions {
  readonly storage: Storage;
  readonly nodeId: string;
  readonly log: Logger;
  /** Lanes of this process that have just got jobs: a shorter way than the NOTIFY to itself. */
  readonly onJobs?: (lanes: readonly string[]) => void;
}

export interface RunningOutbox extends Outbox {
  /** Flushes what is in flight, and refuses what comes after. */
  close(): Promise<void>;
}

export function createOutbox(_options: OutboxOptions): RunningOutbox {
  throw new Error("stub");
}
