import { now } from "../pipeline/deadline.js";

/** What is known of when nodes have last written their rows. Database clock. */
export interface Heartbeats {
  readonly nowMs: number;
  readonly rows: readonly { readonly nodeId: string; readonly lastHeartbeatMs: number }[];
}

/**
 * Tells the silence of peers from this node's own deafness. Rows that grew old while this node could not read them, or
 * while nobody could write one, accuse the database, the clock or this process, not the peers: their silence counts
 * from the end of that.
 */
export class Hearing {
  readonly #toleratedMs: number;
  readonly #nodeId: string;
  #readFailed = false;
  #lastRead: { readonly at: number; readonly databaseMs: number } | null = null;
  #wroteItself = false;
  #deafUntilMs = -Infinity;

  /** A delay of up to half of what peers are granted for being late says nothing. */
  constructor(options: { readonly nodeId: string; readonly heartbeatMs: number; readonly offlineAfterMs: number }) {
    this.#nodeId = options.nodeId;
    this.#toleratedMs = (options.heartbeatMs + options.offlineAfterMs) / 2;
  }

  /** Database clock; silence before it does not count. -Infinity while this node has never been deaf. */
  get deafUntilMs(): number {
    return this.#deafUntilMs;
  }

  noteFailure(): void {
    this.#readFailed = true;
  }

  /** Takes note of news of the rows, this node's own among them, which come every one and a half heartbeats or sooner. */
  note(read: Heartbeats): void {
    const at = now();
    this.#wroteItself ||= read.rows.some(({ nodeId }) => nodeId === this.#nodeId);
    if (this.#readFailed || this.#isLate(at, read.nowMs) || this.#nobodyWrites(read)) this.#deafUntilMs = read.nowMs;
    this.#readFailed = false;
    this.#lastRead = { at, databaseMs: read.nowMs };
  }

  /** On either clock: a machine that slept stops the monotonic one, and the database's may have been set. */
  #isLate(at: number, databaseMs: number): boolean {
    if (this.#lastRead === null) return false;
    return Math.max(at - this.#lastRead.at, databaseMs - this.#lastRead.databaseMs) > this.#toleratedMs;
  }

  /** This node's own row is among them: a database that takes heartbeats would show at least that one. */
  #nobodyWrites({ nowMs, rows }: Heartbeats): boolean {
    return this.#wroteItself && rows.every(({ lastHeartbeatMs }) => nowMs - lastHeartbeatMs > this.#toleratedMs);
  }
}
