import type { AsyncLocalStorage } from "node:async_hooks";
import type { OwnedTransaction, QueriedAll, QueryOptions, Row, Statement, Transaction } from "../contract/storage.js";
import type { Logger } from "../logger.js";
import { MeshError, toError } from "../errors.js";
import { ANSWER_TIMEOUT_MS, type PooledConnection } from "./connection.js";
import { databaseUnavailable, sqlState } from "./connection-errors.js";
import { onlyResult, type BatchOutcome, type SqlResult } from "./statement-batch.js";

type Hook = () => void | Promise<void>;

/** What a transaction needs from its storage. */
export interface TransactionHost {
  readonly log: Logger;
  /** Which transaction or savepoint the running code is inside of. */
  readonly scope: AsyncLocalStorage<PostgresTransaction>;
  acquire(options: QueryOptions | undefined): Promise<PooledConnection>;
  release(connection: PooledConnection): void;
  discard(connection: PooledConnection): void;
}

const IN_FAILED_TRANSACTION = "25P02";
const ROLLBACK_WAIT_MS = 5_000;
const NOTHING_DONE: SqlResult = { rows: [], command: "COMMIT" };

/**
 * One transaction or savepoint. Whatever is asked of it runs in order of asking, a nested transaction as one whole.
 * Code inside a nested transaction that uses the outer one works in the nested one, which is what SQL would do; without
 * that it would wait for itself. Who is inside is told by `scope`: contexts cannot tell code inside a nested transaction
 * from code beside it, which must not share its fate. Up to Node 22 the first nested transaction of a process makes every
 * promise dearer from then on (9.3 M awaits a second before, 3.9 M after, on Node 20); from Node 24 on it costs nothing.
 */
export class PostgresTransaction implements OwnedTransaction {
  readonly #host: TransactionHost;
  readonly #options: QueryOptions | undefined;
  readonly #parent: PostgresTransaction | null;
  readonly #depth: number;
  readonly #limitMs: number;
  readonly #hooks: Hook[] = [];
  #connection: PooledConnection;
  /** BEGIN has been sent. */
  #begun: boolean;
  /** After the last statement that succeeded there was no transaction any more. */
  #endedByHand = false;
  #closed = false;
  #tail: Promise<unknown> = Promise.resolve();

  /** `connection`: at rest, where there is no parent. */
  constructor(host: TransactionHost, connection: PooledConnection, options?: QueryOptions, parent: PostgresTransaction | null = null) {
    this.#host = host;
    this.#options = options;
    this.#limitMs = controlLimit(options);
    this.#connection = connection;
    this.#parent = parent;
    this.#begun = parent !== null;
    this.#depth = parent === null ? 0 : parent.#depth + 1;
  }

  async query<T = Row>(sql: string, params?: readonly unknown[], options?: QueryOptions): Promise<T[]> {
    const level = this.#innermost();
    const { rows } = await level.#inOrder(() => level.#send(sql, params, options));
    return rows as T[];
  }

  async queryAll(statements: readonly Statement[]): Promise<QueriedAll> {
    const level = this.#innermost();
    const { results, error } = await level.#inOrder(() => level.#sendAll(statements));
    return { rows: results.map((result) => result.rows), error };
  }

  transaction<T>(fn: (tx: Transaction) => Promise<T>): Promise<T> {
    const level = this.#innermost();
    return level.#inOrder(() => level.#savepoint(fn));
  }

  joinTransaction(): Promise<Transaction> {
    return Promise.resolve(this);
  }

  afterCommit(hook: Hook): void {
    const level = this.#innermost();
    level.#assertOpen();
    level.#hooks.push(hook);
  }

  async commit(): Promise<void> {
    const result = await this.#inOrder(() => this.#sendCommit(), true);
    this.#host.release(this.#connection);
    // Postgres answers COMMIT with ROLLBACK where a statement had failed before.
    if (result.command === "ROLLBACK") throw abortedError();
    for (const hook of this.#hooks) await this.#runHook(hook);
  }

  async rollback(): Promise<void> {
    if (this.#closed) return;
    const cut = setTimeout(() => this.#connection.destroy(), ROLLBACK_WAIT_MS);
    try {
      await this.#inOrder(() => this.#sendRollback(), true);
      this.#host.release(this.#connection);
    } catch (error) {
      this.#host.log.debug("a rollback failed, its connection is closed", { err: toError(error) });
      this.#host.discard(this.#connection);
    } finally {
      clearTimeout(cut);
    }
  }

  /** Out of order on purpose: an open savepoint would hold it up. In an aborted transaction it fails, and still counts. */
  async keepAlive(): Promise<boolean> {
    if (this.#closed || this.#connection.lost) return false;
    await this.#connection.touch();
    return !this.#connection.lost;
  }

  async #sendCommit(): Promise<SqlResult> {
    if (this.#connection.lost) {
      this.#host.discard(this.#connection);
      throw databaseUnavailable("the connection to Postgres was lost before COMMIT: nothing is committed");
    }
    if (!this.#begun) return NOTHING_DONE;
    if (this.#endedByHand) {
      this.#host.release(this.#connection);
      throw endedByHandError();
    }
    try {
      return await this.#control("COMMIT");
    } catch (error) {
      this.#host.discard(this.#connection);
      throw this.#connection.lost ? commitUnknown(error) : error;
    }
  }

  /** The first thing that is asked of the server begins the transaction. */
  async #send(sql: string, params: readonly unknown[] = [], options?: QueryOptions): Promise<SqlResult> {
    // Without parameters the text may be several commands, which the server takes only by themselves.
    if (params.length === 0 && !this.#begun) await this.#sendAll([]);
    if (this.#begun) {
      const result = await this.#connection.query(sql, params, options);
      this.#endedByHand = this.#connection.outsideTransaction;
      return result;
    }
    return onlyResult(await this.#sendAll([{ sql, params, answerTimeoutMs: options?.answerTimeoutMs, prepare: options?.prepare }]));
  }

  async #sendAll(statements: readonly Statement[]): Promise<BatchOutcome> {
    if (this.#begun) return this.#connection.queryAll(statements);
    const outcome = await this.#begin([this.#limited("BEGIN"), ...statements]);
    this.#begun = outcome.results.length > 0;
    if (!this.#begun) throw outcome.error;
    return { ...outcome, results: outcome.results.slice(1) };
  }

  async #begin(statements: readonly Statement[]): Promise<BatchOutcome> {
    const connection = this.#connection;
    try {
      return await connection.queryAll(statements, true);
    } catch (error) {
      // One that was given up for its silence may be at work on a statement that is slow everywhere.
      if (!connection.lost || connection.silent) throw error;
      this.#host.discard(connection);
      this.#connection = await this.#host.acquire(this.#options);
      return this.#connection.queryAll(statements, true);
    }
  }

  async #sendRollback(): Promise<void> {
    if (this.#begun) await this.#connection.query("ROLLBACK");
  }

  async #savepoint<T>(fn: (tx: Transaction) => Promise<T>): Promise<T> {
    const name = `mesh_${this.#depth + 1}`;
    await this.#control(`SAVEPOINT ${name}`);
    const nested = new PostgresTransaction(this.#host, this.#connection, this.#options, this);
    try {
      const result = await this.#host.scope.run(nested, () => fn(nested));
      await nested.#inOrder(() => this.#release(name), true);
      this.#hooks.push(...nested.#hooks);
      return result;
    } catch (error) {
      await nested.#undo(name);
      throw error;
    }
  }

  async #release(name: string): Promise<void> {
    try {
      await this.#control(`RELEASE SAVEPOINT ${name}`);
    } catch (error) {
      throw sqlState(error) === IN_FAILED_TRANSACTION ? abortedError() : error;
    }
  }

  /** Failing leaves the whole transaction aborted, as its end will show. */
  async #undo(name: string): Promise<void> {
    const sql = `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`;
    this.#closed = true;
    await this.#tail;
    await this.#control(sql).catch(() => undefined);
  }

  #control(sql: string): Promise<SqlResult> {
    return this.#send(sql, [], { answerTimeoutMs: this.#limitMs });
  }

  #limited(sql: string): Statement {
    return { sql, params: [], answerTimeoutMs: this.#limitMs };
  }

  async #runHook(hook: Hook): Promise<void> {
    try {
      await hook();
    } catch (error) {
      this.#host.log.error("an after-commit hook failed", { err: toError(error) });
    }
  }

  /** This one, or the open transaction nested in it that the running code is inside of. */
  #innermost(): PostgresTransaction {
    let level = this.#host.scope.getStore() ?? null;
    while (level !== null && level.#closed) level = level.#parent;
    for (let outer = level; outer !== null; outer = outer.#parent) if (outer === this) return level as PostgresTransaction;
    return this;
  }

  #inOrder<T>(work: () => Promise<T>, last = false): Promise<T> {
    if (this.#closed) return Promise.reject(closedError());
    if (last) this.#closed = true;
    const run = this.#tail.then(work);
    this.#tail = run.catch(() => undefined);
    return run;
  }

  #assertOpen(): void {
    if (this.#closed) throw closedError();
  }
}

/** For statements that begin and end a transaction: not the caller's own, so never without limit. */
function controlLimit(options: QueryOptions | undefined): number {
  return Math.min(ANSWER_TIMEOUT_MS, options?.answerTimeoutMs ?? Infinity);
}

function closedError(): MeshError {
  return new MeshError("the transaction has ended; await everything done in it before its function returns", { code: "TRANSACTION_CLOSED" });
}

function endedByHandError(): MeshError {
  return new MeshError("a statement has ended the transaction: send no COMMIT and no ROLLBACK yourself, and throw to roll back", { code: "TRANSACTION_CLOSED" });
}

function abortedError(): MeshError {
  return new MeshError("the transaction is rolled back: one of its statements failed, and its error was not passed on", {
    code: "TRANSACTION_ABORTED",
  });
}

function commitUnknown(cause: unknown): MeshError {
  return new MeshError("the connection to Postgres was lost during COMMIT: it may or may not have happened", {
    code: "COMMIT_UNKNOWN",
    status: 503,
    cause,
  });
}
