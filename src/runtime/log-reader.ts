import type { Logger } from "../logger.js";
import { within } from "../pipeline/time-limit.js";
import type { EventLog, LogRow } from "./event-log.js";
import { LogCursor } from "./log-cursor.js";

/** Who gets rows, as the reader sees it. */
export interface Follower {
  /** It can take no more now. `look` is called when it can again. */
  readonly full: boolean;
  /** It wants no more. */
  readonly ended: boolean;
}

export interface LogReaderOptions<F extends Follower> {
  readonly eventLog: EventLog;
  readonly log: Logger;
  /** Rows may be gone after this long, in ms. */
  readonly retentionMs: number;
  /** Takes rows in order, for all followers that are not behind, or for one that is. */
  readonly onRow: (row: LogRow, only: F | null) => void;
  /** What there was has been handed over, but since `sinceMs` (database clock) rows may have been missed. */
  readonly onGap: (sinceMs: number) => void;
  /** Followers that can take no more, and get rows no longer unless `onRow` names them. */
  readonly takeFull: () => readonly F[];
  /** The follower has what all have, and gets rows with the others again. */
  readonly onCaughtUp: (follower: F) => void;
  /** True while somebody will say when there is something to read. */
  readonly live: () => boolean;
}

/** Longest time between looks at the log, in ms, where a NOTIFY should have come, and where none can. */
const POLL_LIVE_MS = 4_000;
const POLL_BLIND_MS = 500;
/** Also how much older than itself an event may be that a new subscription gets. */
const LAZY_MS = 250;
const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 2_000;
const STOP_LIMIT_MS = 5_000;

/**
 * Follows the broadcast log: one read at a time, and one more for whatever was announced meanwhile. It is the only way
 * by which events come in, so that a lost, late, doubled or forged NOTIFY changes nothing but the moment of the look.
 * A follower that cannot keep up goes on from a cursor of its own, and holds up no other.
 */
export class LogReader<F extends Follower> {
  readonly #options: LogReaderOptions<F>;
  readonly #behind = new Map<F, LogCursor>();
  #cursor: LogCursor | undefined;
  #announced = false;
  /** The look under way is one that no NOTIFY has asked for. */
  #polled = false;
  #deaf = false;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;
  #lazy: NodeJS.Timeout | undefined;
  #following: Promise<void> | undefined;
  #stopped = false;

  constructor(options: LogReaderOptions<F>) {
    this.#options = options;
  }

  /** Begins with what is committed from now on. */
  async start(): Promise<void> {
    const { eventLog, retentionMs } = this.#options;
    this.#cursor = new LogCursor(eventLog, retentionMs, await eventLog.end());
    this.look();
  }

  /** A NOTIFY says that there is something new; of what nobody wants, many are passed over with one look. */
  notified(wanted: boolean): void {
    this.#deaf = false;
    this.#polled = false;
    if (wanted) this.look();
    else this.#lazy ??= setTimeout(() => this.look(), LAZY_MS);
  }

  /** There may be something new, or room for it. */
  look(): void {
    this.#announced = true;
    this.#polled = false;
    if (!this.#stopped && this.#cursor !== undefined) this.#following ??= this.#follow(this.#cursor);
  }

  /** Events have come that no NOTIFY told of, and none has come since: LISTEN does not work, whatever the server says. */
  get deaf(): boolean {
    return this.#deaf;
  }

  /** A connection was lost, perhaps because the server crashed. */
  reconnected(): void {
    for (const cursor of this.#behind.values()) cursor.suspectCrash = true;
    if (this.#cursor !== undefined) this.#cursor.suspectCrash = true;
    this.look();
  }

  /** Waits for a read under way, up to 5 s; nothing is handed over any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#lazy);
    if (this.#following !== undefined) await within(this.#following, STOP_LIMIT_MS);
  }

  /** Never rejects. The last check for work and the end are one synchronous step, so that no `look` gets lost in between. */
  async #follow(cursor: LogCursor): Promise<void> {
    clearTimeout(this.#timer);
    await null;
    let pauseMs: number;
    try {
      while (this.#announced && !this.#stopped) await this.#round(cursor);
      pauseMs = this.#succeeded();
    } catch (error) {
      pauseMs = this.#failed(error);
    }
    this.#following = undefined;
    if (!this.#stopped) this.#timer = setTimeout(() => this.#poll(), pauseMs);
  }

  #poll(): void {
    this.look();
    this.#polled = this.#lazy === undefined;
  }

  /** One page for all, then as much as they have room for to those behind. */
  async #round(cursor: LogCursor): Promise<void> {
    this.#announced = false;
    clearTimeout(this.#lazy);
    this.#lazy = undefined;
    const take = (row: LogRow): boolean => this.#toAll(cursor, row);
    // What a failure has left over from the round before comes first.
    await cursor.handOver(take);
    const more = await cursor.read(null);
    if (this.#polled && cursor.grown && this.#options.live()) this.#deaf = true;
    await cursor.handOver(take);
    for (const [follower, own] of this.#behind) await this.#catchUp(follower, own, cursor);
    if (more) this.#announced = true;
    else this.#reportGap(cursor);
  }

  #toAll(cursor: LogCursor, row: LogRow): boolean {
    if (this.#stopped) return false;
    this.#options.onRow(row, null);
    for (const follower of this.#options.takeFull()) this.#behind.set(follower, cursor.fork());
    return true;
  }

  /** The others do not move meanwhile, so that it ends up where they are, or full again. */
  async #catchUp(follower: F, own: LogCursor, others: LogCursor): Promise<void> {
    while (!follower.ended && !follower.full && !this.#stopped) {
      await own.handOver((row) => {
        this.#options.onRow(row, follower);
        return !follower.full && !this.#stopped;
      });
      if (!own.empty || follower.full) return;
      if (own.position === others.position) {
        this.#behind.delete(follower);
        this.#options.onCaughtUp(follower);
        return this.#reportGap(own);
      }
      await own.read(others.position);
    }
    if (follower.ended) this.#behind.delete(follower);
  }

  #reportGap(cursor: LogCursor): void {
    const sinceMs = cursor.takeGap();
    if (sinceMs !== null) this.#options.onGap(sinceMs);
  }

  #succeeded(): number {
    if (this.#failures > 0) this.#options.log.info("the event log is read again");
    this.#failures = 0;
    if (this.#deaf || !this.#options.live()) return POLL_BLIND_MS;
    return Math.min(POLL_LIVE_MS, this.#options.retentionMs / 4) * (0.9 + Math.random() * 0.2);
  }

  #failed(error: unknown): number {
    const level = this.#failures++ === 0 ? "warn" : "debug";
    if (!this.#stopped) this.#options.log[level]("reading the event log failed; trying again", { err: error });
    return Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
  }
}
