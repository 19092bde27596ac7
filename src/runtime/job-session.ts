import { MeshError } from "../errors.js";
import type { OwnedTransaction, QueriedAll, QueryOptions, Row, Session, Statement, Storage, Transaction } from "../contract/storage.js";
import { isNotHeld, type JobQueue, type JobRef } from "./queue.js";

/** `untouched`: the handler never came to the database, and the job completes on its own. */
export type SessionEnd = "untouched" | "committed" | "lost";

interface Begun {
  readonly tx: OwnedTransaction;
  /** Of the statements that came with the first use. */
  readonly first: QueriedAll;
}

/**
 * The database as a job's handler sees it: nothing until the first use, then one transaction that begins by deleting the
 * job's row under its fence. So what the handler writes and the job's completion commit together, and what it writes is
 * written once, however often the job runs.
 */
export class JobSession implements Session {
  readonly #storage: Storage;
  readonly #queue: JobQueue;
  readonly #job: JobRef;
  #opening: Promise<Begun> | undefined;
  #tx: OwnedTransaction | undefined;
  #closed = false;
  #stale = false;

  constructor(storage: Storage, queue: JobQueue, job: JobRef) {
    this.#storage = storage;
    this.#queue = queue;
    this.#job = job;
  }

  /** The row lock stands between the job and everybody else. */
  get locked(): boolean {
    return this.#tx !== undefined;
  }

  /** The token turned out to be stale when the transaction was to be opened. */
  get stale(): boolean {
    return this.#stale;
  }

  async query<T = Row>(sql: string, params?: readonly unknown[], options?: QueryOptions): Promise<T[]> {
    // Without parameters the text may be several commands, which go to the server only by themselves.
    if (this.#opening !== undefined || params === undefined || params.length === 0) return (await this.#open(options)).query<T>(sql, params, options);
    const { rows, error } = (await this.#begun(options, [{ sql, params, answerTimeoutMs: options?.answerTimeoutMs, prepare: options?.prepare }])).first;
    if (error !== undefined) throw error;
    return rows[0] as T[];
  }

  async transaction<T>(fn: (tx: Transaction) => Promise<T>, options?: QueryOptions): Promise<T> {
    return (await this.#open(options)).transaction(fn);
  }

  async joinTransaction(): Promise<Transaction> {
    return this.#open();
  }

  /** Keeps the idle transaction of a living process from being ended as that of a frozen one. */
  async keepAlive(): Promise<void> {
    const tx = this.#tx;
    if (tx === undefined || (await tx.keepAlive())) return;
    // Without the connection there is no lock: the lease must protect the job again.
    if (this.#tx === tx) this.#tx = undefined;
  }

  /**
   * After the handler: commits what it wrote, and the completion with it. Rejects where the transaction cannot
   * commit (the caller then rolls back), with code `COMMIT_UNKNOWN` where it may have.
   */
  async finish(): Promise<SessionEnd> {
    this.#closed = true;
    const tx = await this.#settledOpening();
    if (tx === undefined) return this.#stale ? "lost" : "untouched";
    try {
      await tx.commit();
      return "committed";
    } finally {
      this.#tx = undefined;
    }
  }

  /** Ends the transaction, if there is one, with nothing done. Never rejects. */
  async rollback(): Promise<void> {
    this.#closed = true;
    const tx = await this.#settledOpening();
    await tx?.rollback();
    this.#tx = undefined;
  }

  async #open(options?: QueryOptions): Promise<OwnedTransaction> {
    return (await this.#begun(options, [])).tx;
  }

  async #settledOpening(): Promise<OwnedTransaction | undefined> {
    return (await this.#opening?.catch(() => undefined))?.tx;
  }

  #begun(options: QueryOptions | undefined, first: readonly Statement[]): Promise<Begun> {
    if (this.#closed) return Promise.reject(closedError());
    return (this.#opening ??= this.#begin(options, first));
  }

  /** In one round trip with what the handler asks first: none of that is executed where the job is no longer ours. */
  async #begin(options: QueryOptions | undefined, first: readonly Statement[]): Promise<Begun> {
    try {
      const tx = await this.#storage.begin(options);
      const begun = { tx, first: await this.#lock(tx, first) };
      this.#tx = tx;
      return begun;
    } catch (error) {
      // A full pool may have room at the next use; a stale token never comes back.
      if (!this.#stale) this.#opening = undefined;
      throw error;
    }
  }

  async #lock(tx: OwnedTransaction, first: readonly Statement[]): Promise<QueriedAll> {
    try {
      const { rows: [locked, ...rows], error } = await tx.queryAll([this.#queue.completing(this.#job), ...first]);
      if (locked !== undefined) return { rows, error };
      this.#stale = isNotHeld(error);
      throw this.#stale ? leaseLost(this.#job.id) : error;
    } catch (error) {
      await tx.rollback();
      throw error;
    }
  }
}

export function leaseLost(jobId: string): MeshError {
  return new MeshError(`job ${jobId} is no longer held by this node: its lease ran out and another took it over`, {
    code: "LEASE_LOST",
    status: 409,
  });
}

function closedError(): MeshError {
  return new MeshError("the handler has ended, and its transaction with it; await everything done in it before it returns", {
    code: "TRANSACTION_CLOSED",
  });
}
