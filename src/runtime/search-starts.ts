import type { LaneSearch } from "./lane-search.js";
import type { Claim, LaneQuota } from "./queue.js";

/** What it takes to claim a job that was found, in ms at most: the rest is the search. */
const CLAIM_MS = 0.02;

/** Where each claim begins to search the lanes that it is of. */
export class SearchStarts {
  readonly #searchOf: (lane: string) => LaneSearch | undefined;
  readonly #onDue: (lane: string) => void;
  readonly #timers = new Map<string, NodeJS.Timeout>();
  #closed = false;

  /** `onDue` gets a lane that may have jobs before where it was searched from last. */
  constructor(searchOf: (lane: string) => LaneSearch | undefined, onDue: (lane: string) => void) {
    this.#searchOf = searchOf;
    this.#onDue = onDue;
  }

  /** The same quotas, with where to search from unless that is the beginning. Of lanes that were slow, one at a time: only so can be told which of them is. */
  of(quotas: readonly LaneQuota[]): readonly LaneQuota[] {
    let hasSlow = false;
    return quotas.map((want) => {
      const search = this.#searchOf(want.lane);
      if (search?.hasStart !== true) return want;
      if (search.pauseMs > 0 || (search.wasSlow && hasSlow)) return { ...want, from: search.start };
      hasSlow ||= search.wasSlow;
      return want;
    });
  }

  /** A claim of `wanted`, as `of` gave them, was sent at `sentAt` on the clock of `now()`. Returns the lanes that may have more. */
  searched(wanted: readonly LaneQuota[], sentAt: number, { jobs, tookMs, newest }: Claim): string[] {
    this.#learn(wanted, tookMs - jobs.length * CLAIM_MS);
    const counts = new Map<string, number>();
    const last = new Map<string, string>();
    for (const { lane, id } of jobs) {
      counts.set(lane, (counts.get(lane) ?? 0) + 1);
      last.set(lane, id);
    }
    const filled = (want: LaneQuota): boolean => counts.get(want.lane) === want.quota;
    for (const want of wanted) {
      this.#searchOf(want.lane)?.reached(filled(want) ? last.get(want.lane)! : newest, sentAt);
      if (want.from !== undefined && !filled(want)) this.#comeBack(want.lane);
    }
    return wanted.filter(filled).map(({ lane }) => lane);
  }

  close(): void {
    this.#closed = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
  }

  #learn(wanted: readonly LaneQuota[], tookMs: number): void {
    const whole = wanted.filter(({ from }) => from === undefined).map(({ lane }) => this.#searchOf(lane));
    // What has no start yet may be what takes its time, and cannot be left out to find out.
    if (whole.some((search) => search?.hasStart !== true)) return;
    for (const search of whole) search!.learn(tookMs);
    if (whole.length === 0) for (const { lane } of wanted) this.#searchOf(lane)?.compare(tookMs);
  }

  #comeBack(lane: string): void {
    if (this.#closed || this.#timers.has(lane)) return;
    const over = (): void => {
      this.#timers.delete(lane);
      this.#onDue(lane);
    };
    this.#timers.set(lane, setTimeout(over, Math.ceil(this.#searchOf(lane)?.pauseMs ?? 0)));
  }
}
