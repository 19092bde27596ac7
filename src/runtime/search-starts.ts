import { now } from "../pipeline/deadline.js";
import { compareIds, type LaneQuota } from "./queue.js";

/** A search of a lane from its beginning that takes so long is not made with each claim. */
const SLOW_MS = 3;
/** So many in a row must have been slow, of which the fastest counts: one may have waited for a processor. */
const TELLING_SEARCHES = 3;
/** From one such search to the next, in times of what it took: a fiftieth of the time goes into them, and so few jobs wait for one. */
const PAUSE = { factor: 50, longestMs: 5_000 };
/** Jobs become visible in another order than that of their ids, but mostly within this time. */
const LAG_MS = 500;

interface Passed {
  /** Id to search from. */
  from: string;
  /** Latest id that had been claimed at `since`, from which to search `LAG_MS` later. */
  next: string;
  since: number;
  /** What the last searches from the beginning took, in ms. */
  tookMs: readonly number[];
  wholeAgainAt: number;
  timer: NodeJS.Timeout | undefined;
}

export interface Search {
  readonly tookMs: number;
  /** Latest id that it found. */
  readonly last: string | undefined;
  /** Found fewer than it wanted. */
  readonly emptied: boolean;
}

/**
 * Where in its lane a claim begins to search. While some transaction of the database stays open, what is left of the jobs
 * claimed since cannot be removed, and a search from the beginning passes all of it. Where that is slow, most claims
 * begin at what was claimed a moment ago; what lies before, such as a retry, or a job whose transaction was long in
 * committing, is found when the next one begins at the beginning.
 */
export class SearchStarts {
  readonly #onDue: (lane: string) => void;
  readonly #lanes = new Map<string, Passed>();
  #closed = false;

  /** `onDue` gets a lane that may have jobs before where it was searched from last. */
  constructor(onDue: (lane: string) => void) {
    this.#onDue = onDue;
  }

  /** The same quotas, with where to search from unless that is the beginning. */
  of(quotas: readonly LaneQuota[]): readonly LaneQuota[] {
    return quotas.map((want) => {
      const passed = this.#lanes.get(want.lane);
      return passed === undefined || now() >= passed.wholeAgainAt ? want : { ...want, from: passed.from };
    });
  }

  searched({ lane, from }: LaneQuota, { tookMs, last, emptied }: Search): void {
    const at = now();
    const passed = this.#passed(lane, at);
    if (last !== undefined) advance(passed, last, at);
    if (from === undefined) learn(passed, tookMs, at);
    else if (emptied) this.#comeBack(lane, passed, at);
  }

  close(): void {
    this.#closed = true;
    for (const { timer } of this.#lanes.values()) clearTimeout(timer);
  }

  #passed(lane: string, at: number): Passed {
    const known = this.#lanes.get(lane);
    if (known !== undefined) return known;
    const passed = { from: "0", next: "0", since: at - LAG_MS, tookMs: [], wholeAgainAt: 0, timer: undefined };
    this.#lanes.set(lane, passed);
    return passed;
  }

  #comeBack(lane: string, passed: Passed, at: number): void {
    if (this.#closed || passed.timer !== undefined) return;
    const over = (): void => {
      passed.timer = undefined;
      this.#onDue(lane);
    };
    passed.timer = setTimeout(over, Math.max(1, Math.ceil(passed.wholeAgainAt - at)));
  }
}

function learn(passed: Passed, tookMs: number, at: number): void {
  passed.tookMs = [...passed.tookMs.slice(1 - TELLING_SEARCHES), tookMs];
  const fastestMs = passed.tookMs.length < TELLING_SEARCHES ? 0 : Math.min(...passed.tookMs);
  passed.wholeAgainAt = fastestMs > SLOW_MS ? at + Math.min(fastestMs * PAUSE.factor, PAUSE.longestMs) : 0;
}

function advance(passed: Passed, last: string, at: number): void {
  if (at - passed.since < LAG_MS || compareIds(last, passed.next) <= 0) return;
  passed.from = passed.next;
  passed.next = last;
  passed.since = at;
}
