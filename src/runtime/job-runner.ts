import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../errors.js";
import type { Logger } from "../logger.js";
import type { EventInfo } from "../contract/context.js";
import type { Dispatcher, Scope } from "../contract/registration.js";
import type { Storage } from "../contract/storage.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { now } from "../pipeline/deadline.js";
import { isThenable } from "../pipeline/thenable.js";
import { backOffMs } from "../back-off.js";
import { retryRules, type Consumer } from "./consumers.js";
import type { HeldJob } from "./held-job.js";
import { CorruptJobError, planFailure } from "./job-failure.js";
import { decodeJobHeaders, type JobHeaders } from "./job-headers.js";
import { JobSession, leaseLost } from "./job-session.js";
import type { Leases } from "./leases.js";
import type { JobQueue } from "./queue.js";
import type { Settlements } from "./settlements.js";

export interface JobRunnerOptions {
  readonly storage: Storage;
  readonly queue: JobQueue;
  readonly dispatcher: Dispatcher;
  readonly nodeId: string;
  readonly log: Logger;
  readonly leases: Leases;
  readonly settlements: Settlements;
}

/** Runs one job: its handlers in turn, in one job transaction, and then the outcome. */
export class JobRunner {
  readonly #options: JobRunnerOptions;
  readonly #closing = new AbortController();
  #draining = false;

  constructor(options: JobRunnerOptions) {
    this.#options = options;
  }

  /** From now on a job that fails because it was cancelled goes back without a failed attempt. */
  drain(): void {
    this.#draining = true;
  }

  /** Ends what waits for Postgres. */
  close(): void {
    this.#closing.abort();
  }

  /** Never rejects. Resolves when the job's transaction has ended; a batched outcome may still be on its way. */
  async run(job: HeldJob): Promise<void> {
    try {
      await this.#handle(job);
      await this.#finish(job);
    } catch (error) {
      await this.#failed(job, error).catch((reason: unknown) => this.#unsettled(job, reason));
    } finally {
      job.cancellation?.dispose();
    }
  }

  async #handle(job: HeldJob): Promise<void> {
    const scope = this.#scopeFor(job);
    // The payload is parsed for each handler anew: none sees what another did to it.
    for (const consumer of job.consumers) {
      if (job.surrendered) throw leaseLost(job.claimed.id);
      const result = this.#options.dispatcher.run(consumer.target, decodePayload(job), this.#withSession(job, consumer, scope));
      if (isThenable(result)) await result;
    }
  }

  #scopeFor(job: HeldJob): Scope {
    const { claimed } = job;
    const { requestId, meta, nodeId, id } = decodeHeaders(job);
    const event = claimed.event === null ? {} : { event: eventInfo(job, claimed.event, id ?? claimed.id, nodeId) };
    const scope = this.#options.dispatcher.rootScope({
      ...(requestId === "" ? {} : { requestId }),
      meta,
      caller: nodeId === "" ? null : { nodeId, action: null },
      ...event,
    });
    job.cancellation = new Cancellation(scope.cancellation);
    return { ...scope, cancellation: job.cancellation };
  }

  #withSession(job: HeldJob, consumer: Consumer, scope: Scope): Scope {
    const { storage, queue } = this.#options;
    if (!consumer.transaction) return { ...scope, session: storage };
    job.session ??= new JobSession(storage, queue, job.claimed);
    return { ...scope, session: job.session };
  }

  async #finish(job: HeldJob): Promise<void> {
    if (job.surrendered) throw leaseLost(job.claimed.id);
    job.settling = true;
    const end = job.session === undefined ? "untouched" : await this.#commit(job, job.session);
    if (end === "untouched") this.#options.settlements.complete(job);
    else if (end === "committed") this.#options.leases.drop(job);
    else this.#lost(job);
  }

  async #commit(job: HeldJob, session: JobSession): ReturnType<JobSession["finish"]> {
    try {
      return await session.finish();
    } catch (error) {
      if ((error as { code?: unknown }).code !== "COMMIT_UNKNOWN") throw error;
      if (await this.#stillHeld(job)) throw error;
      return "committed";
    }
  }

  /** Asks until Postgres answers. Where none comes the job counts as failed, which is fenced: harmless if it was done. */
  async #stillHeld(job: HeldJob): Promise<boolean> {
    const { signal } = this.#closing;
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        return await this.#options.queue.stillHeld(job.claimed);
      } catch (error) {
        this.#options.log.debug("the outcome of a job's commit could not be looked up yet", { job: job.name, err: toError(error) });
        await sleep(backOffMs(failures), undefined, { signal }).catch(() => undefined);
      }
    }
    return true;
  }

  async #failed(job: HeldJob, error: unknown): Promise<void> {
    await job.session?.rollback();
    if (job.surrendered || job.session?.stale === true) this.#lost(job);
    else if (this.#draining && job.cancellation?.aborted === true) this.#options.settlements.release(job, false);
    else this.#settleFailure(job, error);
  }

  #settleFailure(job: HeldJob, error: unknown): void {
    const { nodeId, settlements } = this.#options;
    const atMs = job.claimed.claimedAtMs + (now() - job.heldSince);
    const plan = planFailure(job.claimed, error, job.consumers, nodeId, atMs);
    this.#logFailure(job, error, plan.error !== null);
    const dropped = plan.error !== null && !job.consumers.some((consumer) => consumer.buries);
    if (dropped) settlements.complete(job);
    else settlements.fail(job, plan);
  }

  #logFailure(job: HeldJob, error: unknown, final: boolean): void {
    const { log } = this.#options;
    const { attempt } = job.claimed;
    const attributes = { job: job.name, attempt, maxAttempts: retryRules(job.consumers).maxAttempts, err: toError(error) };
    if (final) log.error("a job failed for good", attributes);
    else log.warn("a job failed, and will be tried again", attributes);
  }

  /** Keeps a defect in here from holding the job for ever. */
  #unsettled(job: HeldJob, reason: unknown): void {
    this.#options.leases.leave(job);
    this.#options.log.error("a job's failure could not be recorded; it returns when its lease ends", { job: job.name, err: toError(reason) });
  }

  #lost(job: HeldJob): void {
    this.#options.leases.drop(job);
    this.#options.log.debug("the outcome of a job that is no longer held was discarded", { job: job.name });
  }
}

function eventInfo(job: HeldJob, name: string, id: string, nodeId: string): EventInfo {
  return { id, name, attempt: job.claimed.attempt, balanced: true, emittedAtMs: job.claimed.createdAtMs, nodeId };
}

function decodeHeaders(job: HeldJob): JobHeaders {
  try {
    return decodeJobHeaders(job.claimed.headers);
  } catch (error) {
    throw new CorruptJobError(`the headers of job ${job.name} cannot be read: ${toError(error).message}`);
  }
}

function decodePayload(job: HeldJob): unknown {
  try {
    return JSON.parse(job.claimed.payload);
  } catch (error) {
    throw new CorruptJobError(`the payload of job ${job.name} is not JSON: ${toError(error).message}`);
  }
}
