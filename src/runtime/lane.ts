import type { Consumer } from "./consumers.js";
import type { HeldJob } from "./held-job.js";
import { LaneSearch } from "./lane-search.js";

export const SOLO_PREFIX = "s:";
/** Work that a lane may hold ahead of its free slots, in ms of its own pace, so that others get what this node cannot do soon. */
export const AHEAD_MS = 100;
export const MAX_AHEAD = 500;
export const MAX_AHEAD_BYTES = 4 * 1024 * 1024;
/** Weight of the newest job in the averages. */
const NEWEST = 0.1;

/** Where jobs of a lane wait that may be killing their process: one of them at a time runs on a node. */
export function soloLane(lane: string): string {
  return SOLO_PREFIX + lane;
}

export function baseLane(lane: string): string {
  return lane.startsWith(SOLO_PREFIX) ? lane.slice(SOLO_PREFIX.length) : lane;
}

/** The jobs of one lane in this process, and how many more it can do with. */
export class Lane {
  readonly key: string;
  readonly base: string;
  readonly solo: boolean;
  /** Claimed, not started. Oldest first. */
  readonly buffer: HeldJob[] = [];
  readonly search = new LaneSearch();
  running = 0;
  #consumers: readonly Consumer[] = [];
  #capacity = 0;
  #prefetches = false;
  #averageMs: number | null = null;
  #averageBytes = 0;

  constructor(key: string) {
    this.key = key;
    this.base = baseLane(key);
    this.solo = this.base !== key;
  }

  /** The consumers that registered for this very lane. */
  get consumers(): readonly Consumer[] {
    return this.#consumers;
  }

  /** Counts against the node's limit, not against one of its own. */
  get shared(): boolean {
    return this.#consumers.every((consumer) => consumer.limit === null);
  }

  configure(consumers: readonly Consumer[], nodeLimit: number): void {
    this.#consumers = consumers;
    this.#capacity = this.solo ? 1 : Math.min(...consumers.map((consumer) => consumer.limit ?? nodeLimit));
    // A crash counts as an attempt of all that was claimed: with only one, nothing is claimed before it can start.
    this.#prefetches = !this.solo && consumers.every((consumer) => consumer.maxAttempts > 1);
  }

  /** How many more jobs to claim when the node has `free` slots. Zero until half of what was held ahead is used up. */
  quota(free: number): number {
    const ahead = this.#ahead();
    if (this.buffer.length * 2 > ahead) return 0;
    const slots = this.#capacity - this.running;
    // A lane with nothing running always gets one, so that no other lane can starve it.
    const open = this.shared ? Math.min(slots, Math.max(free, this.running === 0 ? 1 : 0)) : slots;
    return Math.max(0, open) + ahead - this.buffer.length;
  }

  /** Learns the lane's pace from a job that has ended. */
  note(durationMs: number, bytes: number): void {
    this.#averageMs = this.#averageMs === null ? durationMs : mix(this.#averageMs, durationMs);
    this.#averageBytes = this.#averageBytes === 0 ? bytes : mix(this.#averageBytes, bytes);
  }

  /** Takes out what was claimed before `since` (monotonic): the pace was misjudged. */
  takeStale(since: number): HeldJob[] {
    const fresh = this.buffer.findIndex((job) => job.heldSince >= since);
    const stale = this.buffer.splice(0, fresh < 0 ? this.buffer.length : fresh);
    if (stale.length > 0) this.#averageMs = null;
    return stale;
  }

  #ahead(): number {
    if (!this.#prefetches || this.#averageMs === null) return 0;
    const inTime = (this.#capacity * AHEAD_MS) / Math.max(this.#averageMs, 0.001);
    const inMemory = MAX_AHEAD_BYTES / Math.max(this.#averageBytes, 1);
    return Math.floor(Math.min(MAX_AHEAD, inTime, inMemory));
  }
}

function mix(average: number, newest: number): number {
  return average + (newest - average) * NEWEST;
}
