import { now } from "../pipeline/deadline.js";

/** The database's clock between two looks at it, carried on by the monotonic one: what this node's own says plays no part. */
export class DatabaseClock {
  #offset = 0;
  #readAt = -Infinity;

  /** `sentAt`: monotonic time at which the question for `databaseMs` was sent. */
  set(databaseMs: number, sentAt: number): void {
    this.#readAt = now();
    this.#offset = databaseMs - (sentAt + this.#readAt) / 2;
  }

  /** Ms since the epoch. */
  now(): number {
    return now() + this.#offset;
  }

  /** Ms since the last look. */
  get age(): number {
    return now() - this.#readAt;
  }
}
