import { setImmediate as eventLoopTurn } from "node:timers/promises";
import pg from "pg";
import type { Row } from "../contract/storage.js";
import { databaseUnavailable, meansUnavailable } from "./connection-errors.js";

export interface ConnectionConfig {
  readonly url: string;
  readonly applicationName: string;
}

export interface SqlResult {
  readonly rows: Row[];
  /** Command tag: `SELECT`, `COMMIT`, … */
  readonly command: string;
}

const CONNECT_TIMEOUT_MS = 5_000;
const KEEP_ALIVE_DELAY_MS = 10_000;
const GOODBYE_MS = 1_000;
/** A connection idle for longer may have been closed by the server without our having read so yet. */
const STALE_AFTER_MS = 100;

export function createClient({ url, applicationName }: ConnectionConfig): pg.Client {
  return new pg.Client({
    connectionString: url,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
  });
}

/** Says goodbye to the server; cuts the socket where that takes too long. Never rejects. */
export async function endClient(client: pg.Client): Promise<void> {
  const cut = setTimeout(() => client.connection.stream.destroy(), GOODBYE_MS);
  await client.end().catch(() => undefined);
  clearTimeout(cut);
}

/** One connection of the pool, and whether it still is one. */
export class PooledConnection {
  readonly #client: pg.Client;
  #lost: Error | null = null;
  #idleSince = 0;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  /** `onLost` is called once, when the connection has turned out to be dead. */
  static async open(config: ConnectionConfig, onLost: (connection: PooledConnection) => void): Promise<PooledConnection> {
    const client = createClient(config);
    const connection = new PooledConnection(client);
    let open = false;
    const lose = (error: Error): void => {
      if (connection.#lost !== null) return;
      connection.#lost = error;
      if (open) onLost(connection);
    };
    client.on("error", lose);
    client.on("end", () => lose(new Error("the connection was closed")));
    await client.connect();
    open = true;
    return connection;
  }

  get lost(): boolean {
    return this.#lost !== null;
  }

  /** Alive, and in no transaction that somebody opened by hand. */
  get reusable(): boolean {
    return this.#lost === null && this.#client.getTransactionStatus() === "I";
  }

  async query(sql: string, params?: readonly unknown[]): Promise<SqlResult> {
    try {
      const result: SqlResult | SqlResult[] = await this.#client.query(sql, params as unknown[] | undefined);
      // Several statements in one string give several results: the last one counts.
      return Array.isArray(result) ? (result.at(-1) as SqlResult) : result;
    } catch (error) {
      if (this.#lost === null && !meansUnavailable(error)) throw error;
      this.#lost ??= error as Error;
      throw databaseUnavailable("the connection to Postgres was lost during a query that may have been executed", error);
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
}
