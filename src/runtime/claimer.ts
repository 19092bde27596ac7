import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../errors.js";
import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";
import { answered } from "./answer-limit.js";
import { backOffMs } from "../back-off.js";
import { Deference } from "./deference.js";
import { HeldJob, type OpenClaim } from "./held-job.js";
import type { JobSlots } from "./job-slots.js";
import { Lane } from "./lane.js";
import type { LaneSet } from "./lane-set.js";
import type { Leases } from "./leases.js";
import type { ClaimedJob, JobQueue, LaneQuota } from "./queue.js";
import { SearchStarts } from "./search-starts.js";
import type { Settlements } from "./settlements.js";

export interface ClaimerOptions {
  readonly queue: JobQueue;
  readonly lanes: LaneSet;
  readonly slots: JobSlots;
  readonly leases: Leases;
  readonly settlements: Settlements;
  readonly leaseMs: number;
  readonly log: Logger;
}

/**
 * The one claimer of this process, over all its lanes: at once when woken, one claim under way at a time, the next one
 * sent while jobs of the last are still being handled.
 */
export class Claimer {
  readonly #options: ClaimerOptions;
  /** Lanes that may have jobs: woken, or not emptied by the last claim. The one claimed longest ago comes first. */
  readonly #ready = new Set<string>();
  readonly #deference = new Deference((lanes) => this.wake(lanes));
  readonly #starts: SearchStarts;
  readonly #closing = new AbortController();
  #open = false;
  /** The claim that failed last: its answer may have been lost after it was done. */
  #doubtful: string | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ClaimerOptions) {
    this.#options = options;
    this.#starts = new SearchStarts((lane) => options.lanes.get(lane)?.search, (lane) => this.wake([lane]));
  }

  start(): void {
    this.#open = true;
    this.poke();
  }

  wake(keys: readonly string[]): void {
    for (const key of this.#served(keys)) this.#ready.add(key);
    this.poke();
  }

  /** As `wake`, where all nodes are told the same. */
  hear(keys: readonly string[]): void {
    this.wake(this.#deference.hear(this.#served(keys)));
  }

  /** There may be room now. */
  poke(): void {
    if (!this.#open || this.#running !== undefined || this.#ready.size === 0) return;
    const quotas = this.#options.slots.quotas(this.#ready);
    if (quotas.length > 0) this.#running = this.#run(quotas);
  }

  /** Resolves when no claim is under way; what the last one brought is given back. */
  async close(): Promise<void> {
    this.#open = false;
    this.#closing.abort();
    this.#deference.close();
    this.#starts.close();
    await this.#running;
  }

  #served(keys: readonly string[]): readonly string[] {
    return keys.filter((key) => this.#options.lanes.get(key) !== undefined);
  }

  async #run(first: readonly LaneQuota[]): Promise<void> {
    let failures = 0;
    for (let quotas = first; quotas.length > 0 && this.#open; quotas = this.#options.slots.quotas(this.#ready)) {
      failures = (await this.#tryClaim(quotas, failures === 0)) ? 0 : failures + 1;
      if (failures > 0) await sleep(backOffMs(failures), undefined, { signal: this.#closing.signal }).catch(() => undefined);
    }
    this.#running = undefined;
  }

  async #tryClaim(quotas: readonly LaneQuota[], report: boolean): Promise<boolean> {
    // Before the claim, so that a wake-up that comes while it runs is not lost.
    for (const { lane } of quotas) this.#ready.delete(lane);
    const told = this.#deference.claiming(quotas.map(({ lane }) => lane));
    try {
      const claimed = await this.#claim(quotas);
      this.#deference.claimed(new Set(claimed.map(({ lane }) => lane)), told);
      return true;
    } catch (error) {
      for (const { lane } of quotas) this.#ready.add(lane);
      if (report) this.#options.log.warn("jobs could not be claimed, will be tried again", { err: toError(error) });
      return false;
    }
  }

  async #claim(quotas: readonly LaneQuota[]): Promise<readonly ClaimedJob[]> {
    const { queue, leases, leaseMs } = this.#options;
    if (this.#doubtful !== undefined) await answered(queue.disown(this.#doubtful), leaseMs);
    const token = randomUUID();
    const sentAt = now();
    const wanted = this.#starts.of(quotas);
    this.#doubtful = token;
    const claim = await answered(queue.claim(wanted, token, leases.takeEnded()), leaseMs);
    this.#doubtful = undefined;
    for (const lane of this.#starts.searched(wanted, sentAt, claim)) this.#ready.add(lane);
    this.#take(claim.jobs, token, sentAt);
    return claim.jobs;
  }

  #take(claimed: readonly ClaimedJob[], token: string, sentAt: number): void {
    const claim: OpenClaim = { token, open: claimed.length };
    const jobs = claimed.map((job) => this.#hold(job, claim, sentAt));
    if (this.#open) this.#options.slots.offer(jobs);
    else for (const job of jobs) this.#options.settlements.release(job, true);
  }

  #hold(claimed: ClaimedJob, claim: OpenClaim, sentAt: number): HeldJob {
    // A lane taken off meanwhile has no consumers: the job goes straight back.
    const lane = this.#options.lanes.get(claimed.lane) ?? new Lane(claimed.lane);
    const job = new HeldJob(claimed, claim, lane, sentAt, this.#options.leaseMs);
    this.#options.leases.hold(job);
    return job;
  }
}
