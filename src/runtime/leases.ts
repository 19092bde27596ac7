import { toError } from "../errors.js";
import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";
import { answered } from "./answer-limit.js";
import { backOffMs } from "../back-off.js";
import type { HeldJob } from "./held-job.js";
import { leaseLost } from "./job-session.js";
import type { JobQueue } from "./queue.js";

const NONE: readonly string[] = [];

/**
 * Keeps the leases of all jobs of this process: every third of a lease one statement extends those of all their claims. A
 * job whose transaction holds its row is protected by that lock as well, and needs its connection kept alive.
 */
export class Leases {
  readonly #queue: JobQueue;
  readonly #leaseMs: number;
  readonly #log: Logger;
  readonly #held = new Map<string, HeldJob>();
  /** Tokens of claims of which nothing is held any more. */
  #ended: string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #used = false;
  #closed = false;
  #failures = 0;

  constructor(queue: JobQueue, leaseMs: number, log: Logger) {
    this.#queue = queue;
    this.#leaseMs = leaseMs;
    this.#log = log;
  }

  /** Some job was held at some time. */
  get used(): boolean {
    return this.#used;
  }

  hold(job: HeldJob): void {
    this.#used = true;
    const older = this.#held.get(job.claimed.id);
    // Claimed anew by this very process: the earlier run has lost it.
    if (older !== undefined) this.#lose(older);
    this.#held.set(job.claimed.id, job);
    this.#schedule(this.#leaseMs / 3);
  }

  /** The job has ended, or is another's now. */
  drop(job: HeldJob): void {
    if (this.leave(job) && --job.claim.open === 0) this.#ended.push(job.claim.token);
  }

  /** What became of the job is unknown: it returns when the lease of its claim ends, which others of it may prolong. False where it was not held. */
  leave(job: HeldJob): boolean {
    return this.#held.get(job.claimed.id) === job && this.#held.delete(job.claimed.id);
  }

  /** Claims of which nothing is held any more, for their rows to be deleted. Where that fails they go when their leases end. */
  takeEnded(): readonly string[] {
    if (this.#ended.length === 0) return NONE;
    const ended = this.#ended;
    this.#ended = [];
    return ended;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** Not armed while nothing is held. */
  #schedule(delayMs: number): void {
    if (this.#closed || this.#timer !== undefined || this.#held.size === 0) return;
    this.#timer = setTimeout(() => void this.#tick(), delayMs);
  }

  async #tick(): Promise<void> {
    try {
      await this.#extendAll();
      this.#failures = 0;
    } catch (error) {
      if (this.#failures++ === 0) this.#log.warn("leases of jobs could not be extended, will be tried again", { err: toError(error) });
    }
    this.#timer = undefined;
    this.#schedule(this.#failures === 0 ? this.#leaseMs / 3 : Math.min(this.#leaseMs / 6, backOffMs(this.#failures)));
  }

  async #extendAll(): Promise<void> {
    const jobs = [...this.#held.values()];
    if (jobs.length === 0) return;
    for (const { session } of jobs) if (session?.locked === true) void session.keepAlive();
    const sentAt = now();
    const ours = await answered(this.#queue.extend(jobs.map((job) => job.claimed)), this.#leaseMs / 3);
    for (const job of jobs) {
      if (ours.has(job.claimed.id)) job.leaseEnd = sentAt + this.#leaseMs;
      else if (this.#held.get(job.claimed.id) === job && !job.settling) this.#lose(job);
    }
  }

  #lose(job: HeldJob): void {
    this.drop(job);
    if (job.settling) return;
    this.#log.warn("the lease of a job was lost", { job: job.name, attempt: job.claimed.attempt });
    job.surrender(leaseLost(job.claimed.id));
  }
}
