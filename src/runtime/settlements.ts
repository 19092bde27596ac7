import type { Logger } from "../logger.js";
import { BatchWriter } from "./batch-writer.js";
import type { HeldJob } from "./held-job.js";
import type { Leases } from "./leases.js";
import type { FailedJob, JobQueue } from "./queue.js";

interface Failure {
  readonly job: HeldJob;
  readonly plan: FailedJob;
}

interface Release {
  readonly job: HeldJob;
  /** True: the claim does not count as an attempt. */
  readonly unstarted: boolean;
}

export interface SettlementsOptions {
  readonly queue: JobQueue;
  readonly leases: Leases;
  readonly log: Logger;
  /** Learns of each retry, and in how many ms it is due. */
  readonly onDeferred: (delayMs: number) => void;
  /** Lanes to which jobs were given back, for other nodes to take. */
  readonly onReleased: (lanes: readonly string[]) => void;
}

/** How jobs end, outside transactions of their own: in batches, fenced, and each repeated until Postgres has it. */
export class Settlements {
  readonly #leases: Leases;
  readonly #log: Logger;
  readonly #completions: BatchWriter<HeldJob>;
  readonly #failures: BatchWriter<Failure>;
  readonly #releases: BatchWriter<Release>;

  constructor({ queue, leases, log, onDeferred, onReleased }: SettlementsOptions) {
    this.#leases = leases;
    this.#log = log;
    this.#completions = new BatchWriter("completion", log, async (jobs, repeated) => {
      const done = await queue.complete(jobs.map((job) => job.claimed));
      this.#settled(jobs, done, repeated);
    });
    this.#failures = new BatchWriter("failure", log, async (failures, repeated) => {
      const done = await queue.fail(failures.map((failure) => failure.plan));
      this.#settled(failures.map((failure) => failure.job), done, repeated);
      for (const { plan } of failures) if (plan.error === null) onDeferred(plan.delayMs);
    });
    this.#releases = new BatchWriter("release", log, async (releases) => {
      await queue.release(releases.map(({ job: { claimed: { id, fence, token } }, unstarted }) => ({ id, fence, token, unstarted })));
      for (const { job } of releases) leases.drop(job);
      onReleased([...new Set(releases.map(({ job }) => job.claimed.lane))]);
    });
  }

  complete(job: HeldJob): void {
    job.settling = true;
    this.#completions.add(job);
  }

  fail(job: HeldJob, plan: FailedJob): void {
    job.settling = true;
    this.#failures.add({ job, plan });
  }

  /** Makes the job ready for anybody. */
  release(job: HeldJob, unstarted: boolean): void {
    job.settling = true;
    this.#releases.add({ job, unstarted });
  }

  async idle(): Promise<void> {
    await Promise.all(this.#writers.map((writer) => writer.idle()));
  }

  async close(limitMs: number): Promise<void> {
    await Promise.all(this.#writers.map((writer) => writer.close(limitMs)));
  }

  get #writers(): readonly Pick<BatchWriter<never>, "idle" | "close">[] {
    return [this.#completions, this.#failures, this.#releases];
  }

  #settled(jobs: readonly HeldJob[], done: ReadonlySet<string>, repeated: boolean): void {
    for (const job of jobs) {
      this.#leases.drop(job);
      if (!repeated && !done.has(job.claimed.id)) this.#log.warn("a job ended after its lease was lost; another run of it counts", { job: job.name });
    }
  }
}
