import { toError } from "../errors.js";
import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";
import { answered } from "./answer-limit.js";
import { backOffMs } from "../back-off.js";
import { retryRules } from "./consumers.js";
import { planTakeover } from "./job-failure.js";
import type { LaneSet } from "./lane-set.js";
import { OldTransactions } from "./old-transactions.js";
import type { Strays } from "./strays.js";
import { UPKEEP_BATCH, type ExpiredJob, type LaneState, type QueueUpkeep } from "./queue-upkeep.js";

export interface UpkeepOptions {
  readonly queue: QueueUpkeep;
  readonly lanes: LaneSet;
  readonly strays: Strays;
  /** Longest time between two looks, and while there is nothing to do. */
  readonly intervalMs: number;
  readonly idleIntervalMs: number;
  /** Nothing is under way here, and new jobs would be told of. */
  readonly idle: () => boolean;
  readonly log: Logger;
  /** Lanes in which jobs wait. */
  readonly onReady: (lanes: readonly string[]) => void;
  /** Called at each look. */
  readonly onLook: () => void;
  /** Claims of this node of which nothing is held any more. */
  readonly takeEnded: () => readonly string[];
}

interface Look {
  /** Until there is something to do; Infinity where nothing waits for its time. */
  readonly untilDueMs: number;
  /** There was something to do. */
  readonly found: boolean;
}

const NOTHING: Look = { untilDueMs: Infinity, found: false };
const ANSWER_LIMIT_MS = 10_000;

/**
 * What nobody wakes a node for: deferred jobs that fall due, jobs whose holder is gone, and wake-ups that never came.
 * Looks when the next deferred job of its lanes is due, and at the interval otherwise.
 */
export class Upkeep {
  readonly #options: UpkeepOptions;
  readonly #oldTransactions: OldTransactions;
  #timer: NodeJS.Timeout | undefined;
  #nextAt = Infinity;
  #looking: Promise<void> | undefined;
  /** A look fell due while one was under way, which may have come too early for it. */
  #again = false;
  #closed = false;
  #failures = 0;

  constructor(options: UpkeepOptions) {
    this.#options = options;
    this.#oldTransactions = new OldTransactions(options.log);
  }

  /** Looks in `delayMs`, or earlier where that was to be. */
  lookWithin(delayMs: number): void {
    const at = now() + delayMs;
    if (this.#closed || at >= this.#nextAt) return;
    this.#nextAt = at;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#onTimer(), Math.ceil(delayMs));
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#looking;
    await this.#options.strays.close();
  }

  #onTimer(): void {
    this.#nextAt = Infinity;
    this.#again = this.#looking !== undefined;
    this.#looking ??= this.#look();
  }

  async #look(): Promise<void> {
    const { intervalMs, idleIntervalMs, idle } = this.#options;
    let nextMs = intervalMs;
    try {
      const { untilDueMs, found } = await this.#lookOnce();
      nextMs = Math.min(found || !idle() ? intervalMs : idleIntervalMs, untilDueMs);
      this.#failures = 0;
    } catch (error) {
      if (this.#failures++ === 0) this.#options.log.warn("the job tables could not be read, will be tried again", { err: toError(error) });
      nextMs = Math.max(nextMs, backOffMs(this.#failures));
    }
    this.#looking = undefined;
    this.lookWithin(this.#again ? 0 : nextMs);
    this.#again = false;
  }

  async #lookOnce(): Promise<Look> {
    const { lanes, queue, strays, onLook, takeEnded } = this.#options;
    onLook();
    if (lanes.keys.length === 0) return NOTHING;
    const withOldest = this.#oldTransactions.due;
    const groups = strays.groupsToCompare();
    const states = await answered(queue.look(lanes.keys, { ended: takeEnded(), withOldest, groups }), ANSWER_LIMIT_MS);
    if (withOldest) this.#oldTransactions.note(states[0]?.oldestTransaction ?? null);
    const expired = states.flatMap((state) => state.expired);
    const reclaimed = expired.length === 0 ? [] : await this.#reclaim(expired);
    const ready = states.filter((state) => state.ready || state.moved > 0).map((state) => state.lane);
    this.#options.onReady([...ready, ...reclaimed]);
    strays.tend(groups, states[0]?.hasOtherPatterns === true);
    const untilDueMs = expired.length >= UPKEEP_BATCH ? 0 : Math.min(...states.map(nextLookMs));
    return { untilDueMs, found: ready.length + expired.length > 0 };
  }

  async #reclaim(expired: readonly ExpiredJob[]): Promise<string[]> {
    const { lanes, queue, log } = this.#options;
    const takeovers = expired.flatMap((job) => {
      const consumers = lanes.consumersOf(job.lane, job.event);
      return consumers.length === 0 ? [] : [planTakeover(job, retryRules(consumers).maxAttempts)];
    });
    log.warn("jobs of a node that no longer holds them are taken over", { jobs: takeovers.length });
    return answered(queue.reclaim(takeovers), ANSWER_LIMIT_MS);
  }
}

function nextLookMs(state: LaneState): number {
  return state.moved >= UPKEEP_BATCH ? 0 : (state.nextDueMs ?? Infinity);
}
