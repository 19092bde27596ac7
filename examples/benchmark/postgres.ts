import { randomBytes } from "node:crypto";
import pg from "pg";
import { createLogger, startEmbeddedPostgres } from "@chimpbase/mesh";

/** As a server in production has them: the throw-away server is otherwise started without protection against crashes. */
const SETTINGS = {
  shared_preload_libraries: "pg_stat_statements",
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  max_connections: "1200",
  shared_buffers: "256MB",
  max_wal_size: "4GB",
};

export interface Counters {
  readonly statements: number;
  /** Rows that statements returned or changed. */
  readonly rows: number;
  readonly notifications: number;
}

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

  async createDatabase(): Promise<string> {
    const name = `mesh_bench_${randomBytes(6).toString("hex")}`;
    await this.query(this.#url, `CREATE DATABASE ${name} TEMPLATE template0`);
    const url = new URL(this.#url);
    url.pathname = `/${name}`;
    return url.href;
  }

  async dropDatabase(url: string): Promise<void> {
    await this.query(this.#url, `DROP DATABASE IF EXISTS ${databaseOf(url)} WITH (FORCE)`);
  }

  async query<T extends pg.QueryResultRow>(url: string, sql: string): Promise<T[]> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return (await client.query<T>(sql)).rows;
    } finally {
      await client.end();
    }
  }

  /** Holds a transaction with a snapshot open until the function that it resolves with is called. */
  async openTransaction(url: string): Promise<() => Promise<void>> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await client.query("SELECT count(*) FROM pg_class");
    return () => client.end();
  }

  async maxConnections(): Promise<number> {
    const [row] = await this.query<{ max_connections: string }>(this.#url, "SHOW max_connections");
    return Number(row!.max_connections);
  }

  /** What Postgres has counted in one database so far; null where it does not count (no pg_stat_statements). Asked from another database. */
  async counters(url: string): Promise<Counters | null> {
    try {
      await this.query(this.#url, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
      const [row] = await this.query<{ statements: number; rows: number; notifications: number }>(
        this.#url,
        `SELECT coalesce(sum(calls), 0)::float8 AS statements, coalesce(sum(rows), 0)::float8 AS rows,
           coalesce(sum(calls) FILTER (WHERE query ILIKE 'NOTIFY%' OR query ILIKE '%pg_notify(%'), 0)::float8 AS notifications
         FROM pg_stat_statements(true) s JOIN pg_database ON pg_database.oid = s.dbid WHERE datname = '${databaseOf(url)}'`,
      );
      return row!;
    } catch {
      return null;
    }
  }

  async version(): Promise<string> {
    const [row] = await this.query<{ server_version: string }>(this.#url, "SHOW server_version");
    return row!.server_version;
  }

  stop(): Promise<void> {
    return this.#stop();
  }
}

const databaseOf = (url: string): string => new URL(url).pathname.slice(1);
