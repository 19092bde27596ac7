import type { Logger } from "../logger.js";
import type { EventLog, LogPosition, LogRow } from "./event-log.js";

export interface LogReaderOptions {
  readonly eventLog: EventLog;
  readonly log: Logger;
  /** Rows may be gone after this long, in ms. */
  readonly retentionMs: number;
  /** Takes the rows in order; `events` is set. */
  readonly onRow: (row: LogRow) => void;
  /** Everything there was has been handed over, but since `sinceMs` (database clock) rows may have been missed. */
  readonly onGap: (sinceMs: number) => void;
  /** True: the reader waits, until the next `look`. */
  readonly full: () => boolean;
  /** True while somebody will say when there is something to read. */
  readonly live: () => boolean;
}

/** Longest time between looks at the log, in ms, where a NOTIFY should have come, and where none can. */
const POLL_LIVE_MS = 4_000;
const POLL_BLIND_MS = 500;
const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 2_000;

/**
 * Follows the broadcast log: one read at a time, and one more for whatever was announced meanwhile. It is the only way
 * by which events come in, so that a lost, late, doubled or forged NOTIFY changes nothing but the moment of the look.
 */
export class LogReader {
  readonly #options: LogReaderOptions;
  #position: LogPosition | undefined;
  /** Read but not handed over. */
  #rows: readonly LogRow[] = [];
  #announced = false;
  #suspectCrash = false;
  #more = false;
  #gapSince: number | undefined;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;
  #following: Promise<void> | undefined;
  #stopped = false;

  constructor(options: LogReaderOptions) {
    this.#options = options;
  }

  /** Begins with what is committed from now on. */
  async start(): Promise<void> {
    this.#position = await this.#options.eventLog.end();
    this.look();
  }

  /** There may be something new, or room for it. */
  look(): void {
    this.#announced = true;
    if (!this.#stopped && this.#position !== undefined) this.#following ??= this.#follow();
  }

  /** A connection was lost, perhaps because the server crashed. */
  reconnected(): void {
    this.#suspectCrash = true;
    this.look();
  }

  /** Waits for a read under way; nothing is handed over any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#following;
  }

  /** Never rejects. The last check for work and the end are one synchronous step, so that no `look` gets lost in between. */
  async #follow(): Promise<void> {
    clearTimeout(this.#timer);
    await null;
    let pauseMs: number;
    try {
      while (this.#hasWork()) await this.#step();
      pauseMs = this.#succeeded();
    } catch (error) {
      pauseMs = this.#failed(error);
    }
    this.#following = undefined;
    if (!this.#stopped) this.#timer = setTimeout(() => this.look(), pauseMs);
  }

  #hasWork(): boolean {
    if (this.#stopped || this.#options.full()) return false;
    return this.#announced || this.#more || this.#rows.length > 0 || this.#gapSince !== undefined;
  }

  async #step(): Promise<void> {
    if (this.#rows.length > 0) await this.#handOver();
    else if (this.#announced || this.#more) await this.#read();
    else this.#reportGap();
  }

  async #read(): Promise<void> {
    const { eventLog, retentionMs } = this.#options;
    const position = this.#position!;
    const suspectCrash = this.#suspectCrash;
    this.#announced = this.#suspectCrash = false;
    try {
      const { rows, next, more } = await eventLog.read(position, suspectCrash);
      if (next.takenAtMs - position.completeAtMs > retentionMs) this.#gapSince ??= position.completeAtMs;
      this.#rows = rows;
      this.#position = next;
      this.#more = more;
    } catch (error) {
      this.#suspectCrash = true;
      throw error;
    }
  }

  async #handOver(): Promise<void> {
    const { eventLog, full, onRow } = this.#options;
    const gone = this.#rows[0]!.events === null ? await eventLog.fillBodies(this.#rows) : 0;
    if (gone > 0) this.#gapSince ??= this.#rows[0]!.emittedAtMs;
    let count = 0;
    while (count < this.#rows.length && this.#rows[count]!.events !== null && !full() && !this.#stopped) onRow(this.#rows[count++]!);
    this.#rows = this.#rows.slice(count);
  }

  #reportGap(): void {
    const sinceMs = this.#gapSince!;
    this.#gapSince = undefined;
    this.#options.onGap(sinceMs);
  }

  #succeeded(): number {
    if (this.#failures > 0) this.#options.log.info("the event log is read again");
    this.#failures = 0;
    return this.#options.live() ? POLL_LIVE_MS * (0.9 + Math.random() * 0.2) : POLL_BLIND_MS;
  }

  #failed(error: unknown): number {
    const level = this.#failures++ === 0 ? "warn" : "debug";
    if (!this.#stopped) this.#options.log[level]("reading the event log failed; trying again", { err: error });
    return Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
  }
}
