import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { backOffMs } from "../back-off.js";
import type { Listener, ListenerHandlers } from "../contract/storage.js";
import type { Logger } from "../logger.js";
import { MeshConfigurationError, toError } from "../errors.js";
import { createClient, endClient } from "./client.js";
import { connectFailure } from "./connection-errors.js";
import { quoteIdentifier } from "./names.js";

export interface ListenerOptions {
  readonly url: string;
  readonly applicationName: string;
  readonly channels: readonly string[];
  readonly handlers: ListenerHandlers;
  readonly log: Logger;
  /** Sends a NOTIFY the way that all others are sent: over the pool. */
  readonly notify: (channel: string, payload: string) => Promise<unknown>;
  readonly onClose?: () => void;
  /** Default 10000. */
  readonly probeEveryMs?: number;
}

/** `lost` resolves when the connection has ended, with the reason. */
interface Connected {
  readonly lost: Promise<Error>;
}

interface Echo {
  readonly channel: string;
  readonly heard: () => void;
}

const PROBE_EVERY_MS = 10_000;
const ANSWER_LIMIT_MS = 5_000;
const ECHO_LIMIT_MS = 2_000;

/** Holds no transaction ever: one on a listening connection blocks the notification queue of the whole server. */
export class PostgresListener implements Listener {
  readonly #options: ListenerOptions;
  readonly #closing = new AbortController();
  #client: pg.Client | undefined;
  #connecting = false;
  #echo: Echo | undefined;
  #running: Promise<unknown> = Promise.resolve();

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** Resolves once LISTEN is in force; from then on the connection is kept up until `close`. */
  async start(): Promise<void> {
    const connected = await this.#connect().catch((error: unknown) => {
      throw connectFailure("database.listenUrl", error);
    });
    this.#running = Promise.all([this.#keepUp(connected), this.#checkEcho()]);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#options.onClose?.();
    // A client that is still connecting settles its `connect` only on an error.
    if (this.#connecting) this.#client?.connection.stream.destroy(new Error("the listener was closed"));
    else if (this.#client !== undefined) await endClient(this.#client);
    await this.#running;
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  async #keepUp(first: Connected): Promise<void> {
    for (let connected: Connected | null = first; connected !== null; connected = await this.#reconnect()) {
      const error = await connected.lost;
      if (!this.#closed) this.#call(() => this.#options.handlers.onDisconnected(error));
    }
  }

  /** Null once closed. */
  async #reconnect(): Promise<Connected | null> {
    let told = false;
    for (let tries = 1; !this.#closed; tries++) {
      await this.#sleep(backOffMs(tries));
      if (this.#closed) return null;
      try {
        return await this.#connect();
      } catch (error) {
        this.#options.log.debug("the LISTEN connection cannot be made yet", { err: toError(error) });
        const failure = connectFailure("database.listenUrl", error);
        // Such as an expired certificate: it may take somebody to act, so once in an outage it is said aloud.
        if (!told && failure instanceof MeshConfigurationError) this.#options.log.warn(failure.message);
        told ||= failure instanceof MeshConfigurationError;
      }
    }
    return null;
  }

  /** Resolves once LISTEN is in force. */
  async #connect(): Promise<Connected> {
    if (this.#closed) throw new Error("the listener was closed");
    const client = createClient(this.#options);
    this.#client = client;
    const lost = new Promise<Error>((resolve) => {
      client.on("error", resolve);
      client.on("end", () => resolve(new Error("the LISTEN connection was closed")));
    });
    client.on("notification", ({ channel, payload }) => this.#deliver(channel, payload ?? ""));
    await this.#open(client);
    this.#call(() => this.#options.handlers.onConnected());
    void this.#probe(client, lost);
    return { lost };
  }

  async #open(client: pg.Client): Promise<void> {
    this.#connecting = true;
    try {
      await client.connect();
      await ask(client, this.#options.channels.map((channel) => `LISTEN ${quoteIdentifier(channel)}`).join("; "));
    } catch (error) {
      await endClient(client);
      throw error;
    } finally {
      this.#connecting = false;
    }
    if (!this.#closed) return;
    await endClient(client);
    throw new Error("the listener was closed");
  }

  /** LISTEN can end without a sign: at a failover, on a half-open socket, behind a pooler. So the server is asked. */
  async #probe(client: pg.Client, lost: Promise<Error>): Promise<void> {
    const ended = new AbortController();
    void lost.then(() => ended.abort());
    while (await waited(this.#options.probeEveryMs ?? PROBE_EVERY_MS, ended.signal)) {
      const reason = await this.#whyDeaf(client);
      if (reason !== null) client.connection.stream.destroy(reason);
    }
  }

  async #whyDeaf(client: pg.Client): Promise<Error | null> {
    try {
      const { rows } = await ask(client, "SELECT pg_listening_channels() AS channel");
      const inForce = new Set(rows.map((row: { channel: string }) => row.channel));
      const missing = this.#options.channels.find((channel) => !inForce.has(channel));
      return missing === undefined ? null : new Error(`LISTEN ${missing} is no longer in force`);
    } catch (error) {
      return toError(error);
    }
  }

  /** Sends a NOTIFY to itself, once: behind a pooler that shares connections LISTEN succeeds and nothing ever arrives. */
  async #checkEcho(): Promise<void> {
    const client = this.#client as pg.Client;
    const channel = `chimpbase:echo:${randomUUID()}`;
    const heard = new Promise<boolean>((resolve) => (this.#echo = { channel, heard: () => resolve(true) }));
    try {
      await ask(client, `LISTEN ${quoteIdentifier(channel)}`);
      await Promise.race([this.#options.notify(channel, ""), this.#whenClosed()]);
      const arrived = await Promise.race([heard, this.#sleep(ECHO_LIMIT_MS)]);
      if (this.#closed) return;
      if (arrived !== true) this.#warnDeaf();
      await ask(client, `UNLISTEN ${quoteIdentifier(channel)}`);
    } catch (error) {
      // Lost connections are somebody else's business: the listener reconnects.
      this.#options.log.debug("the check of LISTEN was cut short", { err: toError(error) });
    } finally {
      this.#echo = undefined;
    }
  }

  #warnDeaf(): void {
    this.#options.log.warn(
      `a NOTIFY did not come back within ${ECHO_LIMIT_MS} ms: LISTEN does not work over this connection, so events arrive late. ` +
        "Does it go through PgBouncer in transaction mode, or to another database? Give a direct connection in database.listenUrl",
    );
  }

  #deliver(channel: string, payload: string): void {
    if (channel === this.#echo?.channel) this.#echo.heard();
    else this.#call(() => this.#options.handlers.onNotify(channel, payload));
  }

  /** What a handler throws must not reach the socket that it is called from. */
  #call(handler: () => void): void {
    try {
      handler();
    } catch (error) {
      this.#options.log.error("a handler of the LISTEN connection failed", { err: toError(error) });
    }
  }

  #whenClosed(): Promise<void> {
    return new Promise((resolve) => this.#closing.signal.addEventListener("abort", () => resolve(), { once: true }));
  }

  async #sleep(ms: number): Promise<void> {
    await waited(ms, this.#closing.signal);
  }
}

/** True after `ms`, false as soon as `signal` aborts. */
function waited(ms: number, signal: AbortSignal): Promise<boolean> {
  return sleep(ms, true, { signal }).catch(() => false);
}

function ask(client: pg.Client, sql: string): Promise<pg.QueryResult> {
  return client.query({ text: sql, query_timeout: ANSWER_LIMIT_MS } as pg.QueryConfig);
}
