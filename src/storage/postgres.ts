import { AsyncLocalStorage } from "node:async_hooks";
import type { Listener, ListenerHandlers, OwnedTransaction, QueryOptions, Row, Statement, Storage, Transaction } from "../contract/storage.js";
import { MeshConfigurationError } from "../errors.js";
import type { PooledConnection } from "./connection.js";
import { sqlState } from "./connection-errors.js";
import { PostgresListener } from "./listener.js";
import { channelName, quoteIdentifier } from "./names.js";
import { checkPostgresOptions, type PostgresOptions } from "./options.js";
import { ConnectionPool } from "./pool.js";
import { onlyResult } from "./statement-batch.js";
import { PostgresTransaction, type TransactionHost } from "./transaction.js";

export type { PostgresOptions } from "./options.js";

const ACQUIRE_TIMEOUT_MS = 5_000;

/**
 * Connects, and creates the schema where it is missing. Rejects with `MeshConfigurationError` where an option is wrong,
 * with code `DATABASE_UNAVAILABLE` where Postgres does not answer.
 */
export async function openPostgres(options: PostgresOptions): Promise<Storage> {
  const storage = new PostgresStorage(checkPostgresOptions(options));
  try {
    await ensureSchema(storage);
    return storage;
  } catch (error) {
    await storage.close();
    throw error;
  }
}

class PostgresStorage implements Storage, TransactionHost {
  readonly schema: string;
  readonly log: PostgresOptions["log"];
  readonly scope = new AsyncLocalStorage<PostgresTransaction>();
  readonly #options: Required<PostgresOptions>;
  readonly #pool: ConnectionPool;
  readonly #listeners = new Set<PostgresListener>();
  #closed = false;

  constructor(options: Required<PostgresOptions>) {
    this.#options = options;
    this.schema = options.schema;
    this.log = options.log;
    this.#pool = new ConnectionPool({ ...options, size: options.poolSize });
  }

  table(name: string): string {
    return `${quoteIdentifier(this.schema)}.${quoteIdentifier(name)}`;
  }

  channel(name: string): string {
    return channelName(this.schema, name);
  }

  async query<T = Row>(sql: string, params?: readonly unknown[], options?: QueryOptions): Promise<T[]> {
    const connection = await this.acquire(options, options?.reserved);
    try {
      const { rows } = await connection.query(sql, params, options, true);
      return rows as T[];
    } finally {
      this.#pool.release(connection);
    }
  }

  async queryThen<T = Row>(first: Statement, next: Statement): Promise<{ readonly rows: T[]; readonly next: Promise<void> }> {
    const connection = await this.acquire(undefined);
    let sent: ReturnType<PooledConnection["queryThen"]> | undefined;
    try {
      sent = connection.queryThen(first, next);
      let outcome = await sent.outcome;
      if (outcome.outdated) {
        await Promise.allSettled([sent.answerToNext]);
        // The second again too: it is to follow the first.
        sent = connection.queryThen(first, next);
        outcome = await sent.outcome;
      }
      return { rows: onlyResult(outcome).rows as T[], next: sent.answerToNext.then(() => undefined) };
    } finally {
      void Promise.allSettled([sent?.answerToNext]).then(() => this.#pool.release(connection));
    }
  }

  async transaction<T>(fn: (tx: Transaction) => Promise<T>, options?: QueryOptions): Promise<T> {
    const tx = await this.begin(options);
    let result: T;
    try {
      result = await fn(tx);
    } catch (error) {
      await tx.rollback();
      throw error;
    }
    await tx.commit();
    return result;
  }

  async begin(options?: QueryOptions): Promise<OwnedTransaction> {
    return new PostgresTransaction(this, await this.acquire(options), options);
  }

  joinTransaction(): Promise<null> {
    return Promise.resolve(null);
  }

  async listen(channels: readonly string[], handlers: ListenerHandlers): Promise<Listener> {
    const { listenUrl: url, applicationName, log } = this.#options;
    const notify = (channel: string, payload: string): Promise<Row[]> => this.query("SELECT pg_notify($1, $2)", [channel, payload]);
    const onClose = (): void => void this.#listeners.delete(listener);
    const listener = new PostgresListener({ url, applicationName: `${applicationName}-listen`, channels, handlers, log, notify, onClose });
    this.#listeners.add(listener);
    if (this.#closed) await listener.close();
    await listener.start();
    return listener;
  }

  stats(): ReturnType<Storage["stats"]> {
    return this.#pool.stats();
  }

  async close(graceMs?: number): Promise<void> {
    this.#closed = true;
    const listeners = [...this.#listeners].map((listener) => listener.close());
    await Promise.all([...listeners, this.#pool.close(graceMs)]);
  }

  release(connection: PooledConnection): void {
    this.#pool.release(connection);
  }

  discard(connection: PooledConnection): void {
    this.#pool.discard(connection);
  }

  acquire(options: QueryOptions | undefined, reserved = false): Promise<PooledConnection> {
    return this.#pool.acquire(options?.acquireTimeoutMs ?? ACQUIRE_TIMEOUT_MS, reserved);
  }
}

async function ensureSchema(storage: Storage): Promise<void> {
  const { schema } = storage;
  if (await schemaExists(storage)) return;
  try {
    await storage.query(`CREATE SCHEMA IF NOT EXISTS ${quoteIdentifier(schema)}`);
  } catch (error) {
    // Two creators at one moment: IF NOT EXISTS does not keep the loser from a unique violation.
    if (await schemaExists(storage)) return;
    if (sqlState(error) !== "42501") throw error;
    throw new MeshConfigurationError(`database.schema "${schema}" does not exist, and this role may not create it`, { cause: error });
  }
}

async function schemaExists(storage: Storage): Promise<boolean> {
  const rows = await storage.query("SELECT FROM pg_namespace WHERE nspname = $1", [storage.schema]);
  return rows.length === 1;
}
