import { now } from "../pipeline/deadline.js";

/** A search of a lane from its beginning that takes longer is not made with each claim. */
const SLOW_MS = 3;
/** So many in a row must have been slow, of which the fastest counts: one may have waited for a processor. */
const TELLING_SEARCHES = 3;
/** From one such search to the next, in times of what it took, so that few new jobs wait for one. */
const PAUSE = { factor: 200, longestMs: 5_000 };
/** Jobs become visible in another order than that of their ids, but mostly within this time. */
const LAG_MS = 500;

/**
 * Where in its lane a claim begins to search. While some transaction of the database stays open, what is left of the jobs
 * claimed since cannot be removed, and a search from the beginning passes all of it. Where that is slow, most claims
 * begin where the end was a moment ago; what has an older id (a retry, a job given back, one whose transaction was long in
 * committing) is found when the next one begins at the beginning, and the rest of it by those that follow.
 */
export class LaneSearch {
  /** Everything before has been searched, at least `LAG_MS` after the newest id in it was given. */
  #from = "0";
  /** How far the searches had come at `#since`. */
  #front = "0";
  #since = -Infinity;
  /** Where to go on with older jobs, of which the last search has found some and may have left others. */
  #older: string | undefined;
  #tookMs: readonly number[] = [];
  #wholeAgainAt = 0;

  /** Id to search from when not from the beginning. */
  get start(): string {
    return this.#older ?? this.#from;
  }

  /** Until the next search from the beginning, in ms. */
  get pauseMs(): number {
    return Math.max(0, this.#wholeAgainAt - now());
  }

  /** It can be searched from elsewhere than the beginning. */
  get hasStart(): boolean {
    return this.#from !== "0";
  }

  /** The last two searches from the beginning were slow, though others may have been the reason. */
  get wasSlow(): boolean {
    return this.#tookMs.length > 1 && this.#tookMs.slice(-2).every((ms) => ms > SLOW_MS);
  }

  /** A search from the beginning took so long. */
  learn(tookMs: number): void {
    this.#tookMs = [...this.#tookMs.slice(1 - TELLING_SEARCHES), tookMs];
    const fastestMs = this.#tookMs.length < TELLING_SEARCHES ? 0 : Math.min(...this.#tookMs);
    this.#wholeAgainAt = fastestMs > SLOW_MS ? now() + Math.min(fastestMs * PAUSE.factor, PAUSE.longestMs) : 0;
  }

  /** A search from `start` took so long. Where that is slow too, it is not the beginning that is. */
  compare(tookMs: number): void {
    if (this.#older !== undefined || tookMs < Math.min(...this.#tookMs) / 2) return;
    this.#tookMs = [];
    this.#wholeAgainAt = 0;
  }

  /** A search that was sent at `sentAt`, on the clock of `now()`, has taken all that it could see up to the id `end`. */
  reached(end: string, sentAt: number): void {
    this.#older = compareIds(end, this.#from) < 0 ? end : undefined;
    if (this.#older !== undefined || compareIds(end, this.#front) < 0 || sentAt - this.#since < LAG_MS) return;
    this.#from = this.#front;
    this.#front = end;
    this.#since = now();
  }
}

/** Below 0 where `a` is the smaller. Ids are 64-bit integers without leading zeros: the shorter is the smaller. */
export function compareIds(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : Number(a > b));
}
