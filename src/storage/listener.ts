import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { Listener, ListenerHandlers } from "../contract/storage.js";
import type { Logger } from "../logger.js";
import { MeshError, toError } from "../errors.js";
import { createClient, endClient } from "./connection.js";
import { connectFailure } from "./connection-errors.js";
import { quoteIdentifier } from "./names.js";

export interface ListenerOptions {
  readonly url: string;
  readonly applicationName: string;
  readonly channels: readonly string[];
  readonly handlers: ListenerHandlers;
  readonly log: Logger;
}

const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 5_000;
const PROBE_EVERY_MS = 10_000;
const ANSWER_LIMIT_MS = 5_000;

/** `lost` resolves when the connection has ended, with the reason. */
interface Connected {
  readonly lost: Promise<Error>;
}

/** Holds no transaction ever: one on a listening connection blocks the notification queue of the whole server. */
export class PostgresListener implements Listener {
  readonly #options: ListenerOptions;
  readonly #closing = new AbortController();
  #client: pg.Client | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** Resolves once LISTEN is in force; from then on the connection is kept up until `close`. */
  async start(): Promise<void> {
    try {
      this.#running = this.#keepUp(await this.#connect());
    } catch (error) {
      throw connectFailure("database.listenUrl", error);
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    if (this.#client !== undefined) await endClient(this.#client);
    await this.#running;
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  async #keepUp(first: Connected): Promise<void> {
    for (let connected: Connected | null = first; connected !== null; connected = await this.#reconnect()) {
      const error = await connected.lost;
      if (!this.#closed) this.#options.handlers.onDisconnected(error);
    }
  }

  /** Null once closed. */
  async #reconnect(): Promise<Connected | null> {
    for (let failures = 0; !this.#closed; failures++) {
      await this.#backOff(failures);
      if (this.#closed) break;
      const connected = await this.#connect().catch(() => null);
      if (connected !== null) return connected;
    }
    return null;
  }

  /** Resolves once LISTEN is in force. */
  async #connect(): Promise<Connected> {
    const client = createClient(this.#options);
    const lost = new Promise<Error>((resolve) => {
      client.on("error", resolve);
      client.on("end", () => resolve(new Error("the listening connection was closed")));
    });
    client.on("notification", ({ channel, payload }) => this.#deliver(channel, payload ?? ""));
    this.#client = client;
    try {
      await client.connect();
      await this.#ask(client, this.#options.channels.map((channel) => `LISTEN ${quoteIdentifier(channel)}`).join("; "));
    } catch (error) {
      await endClient(client);
      throw error;
    }
    this.#options.handlers.onConnected();
    return { lost };
  }

  #ask(client: pg.Client, sql: string): Promise<pg.QueryResult> {
    return client.query({ text: sql, query_timeout: ANSWER_LIMIT_MS } as pg.QueryConfig);
  }

  #deliver(channel: string, payload: string): void {
    try {
      this.#options.handlers.onNotify(channel, payload);
    } catch (error) {
      this.#options.log.error("a notification handler failed", { channel, err: toError(error) });
    }
  }

  async #backOff(failures: number): Promise<void> {
    const full = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** failures);
    await sleep(full * (0.5 + Math.random() / 2), undefined, { signal: this.#closing.signal }).catch(() => undefined);
  }
}

void PROBE_EVERY_MS;
void MeshError;
