import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { createLogger, startEmbeddedPostgres } from "@chimpbase/mesh";
import { clock } from "./measure.js";

/** As a server in production has them: the throw-away server is otherwise started without protection against crashes. */
const SETTINGS = {
  shared_preload_libraries: "pg_stat_statements",
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  max_connections: "1700",
  shared_buffers: "256MB",
  max_wal_size: "4GB",
};

export interface Counters {
  /** Those that clients sent; what functions run within is not among them. */
  readonly statements: number;
  readonly notifications: number;
}

export interface Timed {
  readonly meanMs: number;
  readonly longestMs: number;
}

const COMMITS = 200;
const LOOK_EVERY_MS = 5;

/** The server under all systems of a run: the one that `DATABASE_URL` names, else a throw-away one. */
export class Postgres {
  readonly #url: string;
  readonly #stop: () => Promise<void>;

  private constructor(url: string, stop: () => Promise<void>) {
    this.#url = url;
    this.#stop = stop;
  }

  static async start(): Promise<Postgres> {
    const given = process.env["DATABASE_URL"];
    if (given !== undefined && given !== "") return new Postgres(given, () => Promise.resolve());
    const server = await startEmbeddedPostgres(true, createLogger({ level: "error" }), SETTINGS);
    return new Postgres(server.url, () => server.stop());
  }

  /** Of a database that is not there yet. */
  databaseUrl(): string {
    const url = new URL(this.#url);
    url.pathname = `/mesh_bench_${randomBytes(6).toString("hex")}`;
    return url.href;
  }

  async createDatabase(url: string): Promise<void> {
    await this.query(this.#url, `CREATE DATABASE ${databaseOf(url)} TEMPLATE template0`);
  }

  async dropDatabase(url: string): Promise<void> {
    await this.query(this.#url, `DROP DATABASE IF EXISTS ${databaseOf(url)} WITH (FORCE)`);
  }

  query<T extends pg.QueryResultRow>(url: string, sql: string): Promise<T[]> {
    return this.#with(url, async (client) => (await client.query<T>(sql)).rows);
  }

  /** Looks until the query finds nothing. Resolves with when it looked for the last time, on the common clock. */
  whenEmpty(url: string, sql: string, limitMs: number): Promise<number> {
    return this.#with(url, async (client) => {
      for (const end = clock() + limitMs; ; await sleep(LOOK_EVERY_MS)) {
        const at = clock();
        const { rows } = await client.query<{ some: boolean }>(`SELECT EXISTS (${sql}) AS some`);
        if (!rows[0]!.some) return at;
        if (at > end) throw new Error(`jobs are not completed within ${limitMs} ms`);
      }
    });
  }

  /** By how much a commit that waits for the disk takes longer than one that does not: one flush of the write-ahead log. */
  flushMs(url: string): Promise<number> {
    return this.#with(url, async (client) => {
      // One that is neither temporary nor unlogged, whose commits would have nothing to flush.
      await client.query("CREATE TABLE IF NOT EXISTS flushed (i INTEGER)");
      const commitMs = async (synchronous: "on" | "off"): Promise<number> => {
        await client.query(`SET synchronous_commit = ${synchronous}`);
        const started = performance.now();
        for (let i = 0; i < COMMITS; i++) await client.query("INSERT INTO flushed VALUES (1)");
        return (performance.now() - started) / COMMITS;
      };
      await commitMs("on");
      return (await commitMs("on")) - (await commitMs("off"));
    });
  }

  /** Holds a transaction with a snapshot open until the function that it resolves with is called. */
  async openTransaction(url: string): Promise<() => Promise<void>> {
    const client = await connect(url);
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await client.query("SELECT count(*) FROM pg_class");
    return () => client.end();
  }

  async maxConnections(): Promise<number> {
    const [row] = await this.query<{ max_connections: string }>(this.#url, "SHOW max_connections");
    return Number(row!.max_connections);
  }

  /** What Postgres has counted in one database so far; null where it does not count (no pg_stat_statements). Asked from another database. */
  counters(url: string): Promise<Counters | null> {
    // pg_notify returns a row for each notification.
    return this.#counted<Counters>(
      url,
      `coalesce(sum(calls), 0)::float8 AS statements,
       coalesce(sum(greatest(calls, rows)) FILTER (WHERE query ILIKE 'NOTIFY%' OR query ILIKE '%pg_notify(%'), 0)::float8 AS notifications`,
    );
  }

  /**
   * Rows that were read from the tables of one database so far: those that sequential scans returned, and the entries that scans of indexes
   * did. Sessions report theirs when they end a statement, but no more than once a second, and after 10 s of idleness at the latest.
   */
  async rowsRead(url: string): Promise<number> {
    const [row] = await this.query<{ read: number }>(
      url,
      `SELECT ((SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables) + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes))::float8 AS read`,
    );
    return row!.read;
  }

  /** Begins to count anew what runs in one database. False where that cannot be had. */
  async countAnew(url: string): Promise<boolean> {
    return (await this.#counted(url, "count(pg_stat_statements_reset(userid, dbid, queryid))")) !== null;
  }

  /** How long statements ran that hold `text`, since `countAnew`; null where there were none, or Postgres does not count. */
  async timed(url: string, text: string): Promise<Timed | null> {
    const timed = await this.#counted<Timed | { readonly meanMs: null }>(url, `sum(total_exec_time) / sum(calls) AS "meanMs", max(max_exec_time) AS "longestMs"`, `position('${text}' IN query) > 0`);
    return timed !== null && timed.meanMs !== null ? timed : null;
  }

  async version(): Promise<string> {
    const [row] = await this.query<{ server_version: string }>(this.#url, "SHOW server_version");
    return row!.server_version;
  }

  stop(): Promise<void> {
    return this.#stop();
  }

  /** One row over the statements of one database that `condition` picks. */
  async #counted<T extends object>(url: string, columns: string, condition = "true"): Promise<T | null> {
    try {
      await this.query(this.#url, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
      const [row] = await this.query<T>(
        this.#url,
        `SELECT ${columns} FROM pg_stat_statements(true) s JOIN pg_database ON pg_database.oid = s.dbid WHERE datname = '${databaseOf(url)}' AND ${condition}`,
      );
      return row!;
    } catch {
      return null;
    }
  }

  async #with<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = await connect(url);
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  // A client that is cut off with nobody listening ends the process; whoever uses it next is told.
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

const databaseOf = (url: string): string => new URL(url).pathname.slice(1);
