import { MeshCancelledError } from "../errors.js";
import { now } from "../pipeline/deadline.js";
import { within } from "../pipeline/time-limit.js";
import type { Consumer } from "./consumers.js";
import type { HeldJob } from "./held-job.js";
import type { JobRunner } from "./job-runner.js";
import type { Lane } from "./lane.js";
import type { LaneSet } from "./lane-set.js";
import type { LaneQuota } from "./queue.js";
import type { Settlements } from "./settlements.js";

export interface JobSlotsOptions {
  readonly lanes: LaneSet;
  readonly runner: JobRunner;
  readonly settlements: Settlements;
  /** Jobs at the same time of all lanes without a limit of their own. */
  readonly limit: number;
  /** A job has ended: there may be room for a claim. */
  readonly onRoom: () => void;
}

/**
 * Which claimed job starts when. Lanes take turns, one job a turn. Consumers with a `concurrency` of their own keep to
 * that; all others share the node's limit, over which a lane may go with one job when it runs none: however slow the
 * other lanes are, each moves.
 */
export class JobSlots {
  readonly #options: JobSlotsOptions;
  readonly #running = new Set<HeldJob>();
  /** Lanes with something to start, in order of their turns. */
  readonly #turns = new Set<Lane>();
  #sharedRunning = 0;
  #soloInHand = 0;
  readonly #endWaiters: (() => void)[] = [];

  constructor(options: JobSlotsOptions) {
    this.#options = options;
  }

  get running(): ReadonlySet<HeldJob> {
    return this.#running;
  }

  offer(jobs: readonly HeldJob[]): void {
    for (const job of jobs) {
      job.lane.buffer.push(job);
      this.#turns.add(job.lane);
      if (job.lane.solo) this.#soloInHand++;
    }
    this.#fill();
  }

  /** What to claim of the lanes given, so that it can be handled soon. */
  quotas(keys: Iterable<string>): LaneQuota[] {
    const quotas: LaneQuota[] = [];
    let free = this.#options.limit - this.#sharedRunning;
    let soloFree = this.#soloInHand === 0;
    for (const key of keys) {
      const lane = this.#options.lanes.get(key);
      if (lane === undefined || (lane.solo && !soloFree)) continue;
      const quota = lane.quota(free);
      if (quota <= 0) continue;
      quotas.push({ lane: key, quota });
      if (lane.shared) free = Math.max(0, free - quota);
      if (lane.solo) soloFree = false;
    }
    return quotas;
  }

  /** Gives back what has waited in vain since before `since` (monotonic): another node may be free. */
  releaseStale(since: number): void {
    for (const lane of this.#options.lanes.all()) this.release(lane.takeStale(since));
  }

  releaseBuffered(): void {
    for (const lane of this.#options.lanes.all()) this.release(lane.buffer.splice(0));
  }

  /** Gives jobs back that never started. */
  release(jobs: readonly HeldJob[]): void {
    for (const job of jobs) {
      if (job.lane.solo) this.#soloInHand--;
      this.#options.settlements.release(job, true);
    }
  }

  /** Resolves when no consumer of these runs a job. */
  async idle(consumers: readonly Consumer[]): Promise<void> {
    await this.#ended(() => consumers.every((consumer) => consumer.running === 0));
  }

  /**
   * Cancels what still runs and gives it back, rolled back, for another node to take at once. Jobs whose outcome is on
   * its way get up to `limitMs` for it.
   */
  async abandon(limitMs: number): Promise<void> {
    const given = [...this.#running].filter((job) => !job.settling).map((job) => this.#giveUp(job));
    const settled = this.#ended(() => [...this.#running].every((job) => job.surrendered));
    await within(Promise.allSettled([...given, settled]), limitMs);
  }

  async #giveUp(job: HeldJob): Promise<void> {
    job.surrender(new MeshCancelledError(`the node is stopping; job ${job.name} goes to another`));
    await job.session?.rollback();
    this.#options.settlements.release(job, false);
  }

  /** Resolves when `condition` holds after the end of some job. */
  async #ended(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#endWaiters.push(resolve));
  }

  #fill(): void {
    let started = true;
    while (started) {
      started = false;
      for (const lane of [...this.#turns]) started = this.#turn(lane) || started;
    }
  }

  /** One turn of a lane; true where it started a job. */
  #turn(lane: Lane): boolean {
    const job = lane.buffer[0];
    if (job === undefined) return this.#endTurns(lane);
    const consumers = this.#options.lanes.consumersOf(lane.key, job.claimed.event);
    if (consumers.length === 0 || job.surrendered || now() >= job.leaseEnd) return this.#discardHead(lane);
    if (!this.#hasRoom(lane, consumers)) return false;
    lane.buffer.shift();
    // To the end of the turns.
    this.#turns.delete(lane);
    this.#turns.add(lane);
    this.#start(job, consumers);
    return true;
  }

  #endTurns(lane: Lane): boolean {
    this.#turns.delete(lane);
    return false;
  }

  #discardHead(lane: Lane): boolean {
    this.release(lane.buffer.splice(0, 1));
    return true;
  }

  #hasRoom(lane: Lane, consumers: readonly Consumer[]): boolean {
    for (const consumer of consumers) if (consumer.limit !== null && consumer.running >= consumer.limit) return false;
    return !isShared(consumers) || lane.running === 0 || this.#sharedRunning < this.#options.limit;
  }

  #start(job: HeldJob, consumers: readonly Consumer[]): void {
    const startedAt = now();
    job.consumers = consumers;
    this.#count(job, 1);
    this.#running.add(job);
    void this.#options.runner.run(job).then(() => this.#afterRun(job, now() - startedAt));
  }

  #afterRun(job: HeldJob, durationMs: number): void {
    this.#running.delete(job);
    this.#count(job, -1);
    if (job.lane.solo) this.#soloInHand--;
    job.lane.note(durationMs, job.claimed.payload.length);
    for (const resolve of this.#endWaiters.splice(0)) resolve();
    this.#fill();
    this.#options.onRoom();
  }

  #count(job: HeldJob, by: 1 | -1): void {
    job.lane.running += by;
    for (const consumer of job.consumers) consumer.running += by;
    if (isShared(job.consumers)) this.#sharedRunning += by;
  }
}

function isShared(consumers: readonly Consumer[]): boolean {
  return consumers.every((consumer) => consumer.limit === null);
}
