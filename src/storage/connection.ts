import { Socket } from "node:net";
import { setImmediate as eventLoopTurn } from "node:timers/promises";
import type { QueryOptions, Statement } from "../contract/storage.js";
import { requestCancel, type Backend } from "./cancel-request.js";
import { createClient, endClient, type Client, type ConnectionConfig } from "./client.js";
import { databaseUnavailable, meansUnavailable, sqlState, UNKNOWN_STATEMENT } from "./connection-errors.js";
import { PreparedStatements } from "./prepared-statements.js";
import { onlyResult, StatementBatch, type BatchOutcome, type SqlResult } from "./statement-batch.js";

export interface PooledConnectionConfig extends ConnectionConfig {
  /** Whether statements may be prepared, where the connection leads to the server itself. */
  readonly mayPrepare: () => boolean;
  /** Called when the server did not know a statement that it had prepared for this connection. */
  readonly onSessionChanged: () => void;
  /** Called once, when an open connection has turned out to be dead. */
  readonly onLost: (connection: PooledConnection) => void;
}

/** Default of `QueryOptions.answerTimeoutMs`. */
export const ANSWER_TIMEOUT_MS = 30_000;

const LONGEST_TIMER_MS = 2 ** 31 - 1;
const LEARN_LIMIT_MS = 5_000;
const DROPS_PREPARED = /(?:^|;)\s*(?:deallocate|discard)\b/i;
/** A connection idle for longer may have been closed by the server without our having read so yet. */
const STALE_AFTER_MS = 100;

const limitOf = ({ answerTimeoutMs = ANSWER_TIMEOUT_MS }: Statement): number => answerTimeoutMs;

/** One connection of the pool, and whether it still is one. */
export class PooledConnection {
  readonly #client: Client;
  /** Below the encryption, where there is one. */
  readonly #socket: Socket;
  readonly #config: PooledConnectionConfig;
  /** Null where a pooler may execute the next statement in another session. */
  #prepared: PreparedStatements | null = null;
  /** Whether that is known, or would be worth asking. */
  #directness: "unasked" | "wanted" | "asked" = "unasked";
  #opened = false;
  #lost = false;
  #lossCause: Error | undefined;
  /** The limit of the answer that was overdue. */
  #overdueMs: number | undefined;
  #busy = false;
  #touching: Promise<void> | undefined;
  #idleSince = 0;

  private constructor(client: Client, socket: Socket, config: PooledConnectionConfig) {
    this.#client = client;
    this.#socket = socket;
    this.#config = config;
    client.on("error", (error) => this.#lose(error));
    client.on("end", () => this.#lose());
  }

  static async open(config: PooledConnectionConfig): Promise<PooledConnection> {
    const socket = new Socket();
    // It listens from the beginning: the server may end the session with the words that make it ready.
    const connection = new PooledConnection(createClient(config, socket), socket, config);
    try {
      await connection.#client.connect();
      if (connection.#lost) throw connection.#lossCause ?? new Error("the server has closed the connection");
      connection.#opened = true;
      return connection;
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  get lost(): boolean {
    return this.#lost;
  }

  /** Given up because an answer was overdue. */
  get silent(): boolean {
    return this.#overdueMs !== undefined;
  }

  /** No transaction is open, as far as the server has answered. */
  get outsideTransaction(): boolean {
    return this.#client.getTransactionStatus() === "I";
  }

  /** Alive, and in no transaction that somebody opened by hand. */
  get reusable(): boolean {
    return !this.#lost && this.outsideTransaction;
  }

  /**
   * One at a time. Without an answer within `limitMs` the connection is given up: the kernel gives up on a peer that does
   * not confirm what was sent to it only after a quarter of an hour, and never on a frozen one.
   */
  query(sql: string, params?: readonly unknown[], { answerTimeoutMs = ANSWER_TIMEOUT_MS, prepare = false }: QueryOptions = {}, atRest = false): Promise<SqlResult> {
    if (!prepare) return this.#alone(() => this.#send(sql, params, answerTimeoutMs));
    return this.queryAll([{ sql, params: params ?? [], answerTimeoutMs, prepare }], atRest).then(onlyResult);
  }

  /**
   * Statements in one round trip. Those before the last are limited together, by the first one's limit. Rejects where a value cannot be sent, or the connection is lost.
   * `atRest`: no transaction has begun before them, so that what proves outdated can be undone and sent once more.
   */
  queryAll(statements: readonly Statement[], atRest = false): Promise<BatchOutcome> {
    return this.#alone(async () => {
      const outcome = await this.#carryOut(statements, this.#batch(statements));
      if (!outcome.outdated || !atRest) return outcome;
      if (outcome.results.length > 0) await this.#send("ROLLBACK", [], limitOf(statements[0]!));
      return this.#carryOut(statements, this.#batch(statements));
    });
  }

  /** Sends both as `Storage.queryThen` does. Throws where a value cannot be sent; nothing has been sent then. */
  queryThen(first: Statement, next: Statement): { readonly outcome: Promise<BatchOutcome>; readonly answerToNext: Promise<SqlResult> } {
    const nextBatch = this.#batch([next]);
    const firstBatch = this.#batch([first], nextBatch);
    const answerToNext = new Promise<BatchOutcome>((resolve) => {
      firstBatch.onEnd = () => resolve(this.#carryOut([next], nextBatch));
    }).then(onlyResult);
    return { outcome: this.#carryOut([first], firstBatch), answerToNext };
  }

  #batch(statements: readonly Statement[], next?: StatementBatch): StatementBatch {
    if (this.#directness === "unasked" && statements.some(({ prepare }) => prepare)) this.#directness = "wanted";
    return new StatementBatch(statements, this.#config.mayPrepare() ? this.#prepared : null, next);
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#touching !== undefined) await this.#touching;
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  /** Lets the server see life on a connection that waits for its user. Never rejects. */
  touch(): Promise<void> {
    if (this.#busy) return Promise.resolve();
    const ended = (): void => void (this.#touching = undefined);
    return (this.#touching ??= this.#send("SELECT 1", [], ANSWER_TIMEOUT_MS).then(ended, ended));
  }

  /** Whether to `learn` before the next user: one wanted statements prepared, and nobody knows whether they can be. */
  get curious(): boolean {
    return this.#directness === "wanted" && this.#config.mayPrepare();
  }

  /** Poolers give their clients the key of a session that is none of the server's (PgBouncer, `BackendKeyData`). Never rejects. */
  async learn(): Promise<void> {
    this.#directness = "asked";
    try {
      const { rows } = await this.#send("SELECT pg_backend_pid() AS pid", [], LEARN_LIMIT_MS);
      if (rows[0]!["pid"] === (this.#client as unknown as Backend).processID) this.#prepared = new PreparedStatements();
    } catch {
      // Where it is not lost, it serves without.
    }
  }

  async #send(sql: string, params: readonly unknown[] | undefined, limitMs: number): Promise<SqlResult> {
    if (DROPS_PREPARED.test(sql)) this.#prepared?.forget();
    const limit = this.#limit(limitMs);
    try {
      const result: SqlResult | SqlResult[] = await this.#client.query(sql, params as unknown[] | undefined);
      // Several statements in one string give several results: the last one counts.
      return Array.isArray(result) ? (result.at(-1) as SqlResult) : result;
    } catch (error) {
      throw this.#judge(error);
    } finally {
      clearTimeout(limit);
    }
  }

  /** The client has the batch before the first `await`. */
  async #carryOut(statements: readonly Statement[], batch: StatementBatch): Promise<BatchOutcome> {
    let done = 0;
    let limit: NodeJS.Timeout | undefined;
    const limitNext = (): void => {
      if (done === statements.length) return;
      clearTimeout(limit);
      limit = this.#limit(limitOf(statements[done++]!));
    };
    batch.onResult = limitNext;
    limitNext();
    this.#client.query(batch);
    const outcome = await batch.outcome;
    clearTimeout(limit);
    if (outcome.error === undefined) return outcome;
    // Of whoever asked: as it comes it leads to the socket.
    if (outcome.error instanceof Error) Error.captureStackTrace(outcome.error);
    if (outcome.outdated) this.#forgetPrepared(outcome.error);
    const error = this.#judge(outcome.error);
    if (this.#lost) throw error;
    return outcome;
  }

  /** All of them, as what happened to one may have happened to others. */
  #forgetPrepared(error: unknown): void {
    this.#prepared?.forget();
    if (sqlState(error) === UNKNOWN_STATEMENT) this.#config.onSessionChanged();
  }

  #limit(limitMs: number): NodeJS.Timeout | undefined {
    return limitMs > LONGEST_TIMER_MS ? undefined : setTimeout(() => this.#giveUp(limitMs), limitMs);
  }

  /** What a statement's failure says: of the statement, or of the connection. */
  #judge(error: unknown): unknown {
    if (meansUnavailable(error)) this.#lose();
    if (!this.#lost) return error;
    if (this.#overdueMs !== undefined) return databaseUnavailable(`Postgres has not answered within ${Math.round(this.#overdueMs)} ms; the query may have been executed`, error);
    return databaseUnavailable("the connection to Postgres was lost during a query that may have been executed", error);
  }

  /** A statement that is merely slow is stopped too: closing alone would let it run on, beside those that come after it. */
  #giveUp(limitMs: number): void {
    this.#overdueMs = limitMs;
    // The driver's types do not tell of these fields.
    requestCancel(this.#client as unknown as Backend);
    this.#reset();
  }

  /** Drops what the kernel has not delivered: a statement must not be executed when the network is back, after later ones. */
  #reset(): void {
    try {
      // Node spins for ever at its exit where a socket was reset that was being shut down (seen with 20.20 and 24).
      if (this.#socket.writableEnded) this.destroy();
      else this.#socket.resetAndDestroy();
    } catch {
      // Unix sockets cannot.
      this.destroy();
    }
  }

  rest(): void {
    this.#idleSince = performance.now();
  }

  idleFor(): number {
    return performance.now() - this.#idleSince;
  }

  /** After a longer rest, lets the event loop read what the server may have sent meanwhile. Resolves with `reusable`. */
  async wake(): Promise<boolean> {
    if (this.idleFor() > STALE_AFTER_MS) {
      // The first turn may end the poll that is under way, the second follows a whole one.
      await eventLoopTurn();
      await eventLoopTurn();
    }
    return this.reusable;
  }

  end(): Promise<void> {
    return endClient(this.#client);
  }

  /** Cuts the socket: what is under way fails, and the server rolls back. */
  destroy(): void {
    this.#client.connection.stream.destroy();
  }

  #lose(cause?: Error): void {
    if (this.#lost) return;
    this.#lost = true;
    this.#lossCause = cause;
    if (this.#opened) this.#config.onLost(this);
  }
}
