import { setImmediate as eventLoopTurn } from "node:timers/promises";
import type { EventLog, LogPosition, LogRow } from "./event-log.js";

/** A place in the log, and what has been read there but not handed over. Whatever fails, the next try goes on from here. */
export class LogCursor {
  readonly #eventLog: EventLog;
  readonly #retentionMs: number;
  #position: LogPosition;
  #rows: readonly LogRow[];
  #next = 0;
  #gapSince: number | null = null;
  /** The last read has found something, of interest or not. */
  grown = false;
  /** The next read looks for rows of a server that has crashed. */
  suspectCrash = false;

  constructor(eventLog: EventLog, retentionMs: number, position: LogPosition, rows: readonly LogRow[] = []) {
    this.#eventLog = eventLog;
    this.#retentionMs = retentionMs;
    this.#position = position;
    this.#rows = rows;
  }

  /** What has been read, handed over or not. */
  get position(): LogPosition {
    return this.#position;
  }

  /** Everything read has been handed over. */
  get empty(): boolean {
    return this.#next >= this.#rows.length;
  }

  /** A second cursor at the same place. Bodies are left out: how long it holds its rows is not known. */
  fork(): LogCursor {
    const rows = this.#rows.slice(this.#next).map((row) => ({ ...row, events: null }));
    const cursor = new LogCursor(this.#eventLog, this.#retentionMs, this.#position, rows);
    cursor.suspectCrash = this.suspectCrash;
    return cursor;
  }

  /**
   * One page, as far as `until` (null: all there is). Resolves with whether there may be more. Everything read before
   * must have been handed over.
   */
  async read(until: LogPosition | null): Promise<boolean> {
    const { suspectCrash } = this;
    this.suspectCrash = false;
    this.grown = false;
    try {
      const { rows, grown, next, more, nowMs } = await this.#eventLog.read(this.#position, until, suspectCrash);
      // It may have waited for a connection through a crash, without looking for what that hides: nothing of it counts.
      if (this.suspectCrash && !suspectCrash) return true;
      if (nowMs - this.#position.completeAtMs > this.#retentionMs) this.#gapSince ??= this.#position.completeAtMs;
      this.#rows = rows;
      this.grown = grown;
      this.#next = 0;
      this.#position = next;
      return more;
    } catch (error) {
      this.suspectCrash = true;
      throw error;
    }
  }

  /**
   * Hands rows over one by one, bodies and all, until none is left or `take` returns false. A turn of the event loop
   * between two rows lets handlers that are quick keep up with the reading.
   */
  async handOver(take: (row: LogRow) => boolean): Promise<void> {
    let wanted = true;
    for (let first = true; wanted && !this.empty; first = false) {
      if (!first) await eventLoopTurn();
      const row = this.#rows[this.#next]!;
      if (row.events === null) await this.#fill();
      this.#next++;
      wanted = take(row);
    }
  }

  /** Since when rows may have been missed, once; null: none. */
  takeGap(): number | null {
    const since = this.#gapSince;
    this.#gapSince = null;
    return since;
  }

  async #fill(): Promise<void> {
    const rows = this.#rows.slice(this.#next);
    const gone = await this.#eventLog.fillBodies(rows);
    if (gone > 0) this.#gapSince ??= rows[0]!.emittedAtMs;
  }
}
