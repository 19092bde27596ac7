import type { Logger } from "../logger.js";
import { type MeshError, MeshOverloadedError } from "../errors.js";
import { PooledConnection } from "./connection.js";
import { connectFailure, databaseUnavailable } from "./connection-errors.js";

export interface PoolOptions {
  readonly url: string;
  readonly applicationName: string;
  readonly size: number;
  readonly log: Logger;
}

interface Waiter {
  readonly resolve: (connection: PooledConnection) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

const IDLE_TIMEOUT_MS = 30_000;
const CLOSE_GRACE_MS = 5_000;

/**
 * Connections for queries, most recently used first. In place of pg's own pool, because a wait here ends at a limit of
 * its own per caller, takes whichever comes first of a released and a new connection, and never hands out a dead one.
 */
export class ConnectionPool {
  readonly #options: PoolOptions;
  readonly #open = new Set<PooledConnection>();
  readonly #idle: PooledConnection[] = [];
  readonly #waiters = new Set<Waiter>();
  #connecting = 0;
  #reachable = true;
  #sweep: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;
  readonly #goodbyes = new Set<Promise<void>>();
  #onEmpty: (() => void) | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  stats(): { total: number; idle: number; waiting: number; reachable: boolean } {
    return { total: this.#open.size, idle: this.#idle.length, waiting: this.#waiters.size, reachable: this.#reachable };
  }

  /** Every connection got must be given back by `release` or `discard`. */
  async acquire(timeoutMs: number): Promise<PooledConnection> {
    while (this.#closing === undefined) {
      const idle = this.#idle.pop();
      if (idle === undefined) return this.#wait(timeoutMs);
      if (await idle.wake()) return idle;
      this.discard(idle);
    }
    throw closedError();
  }

  release(connection: PooledConnection): void {
    if (!connection.reusable || this.#closing !== undefined) return this.discard(connection);
    this.#reachable = true;
    const waiter = this.#nextWaiter();
    if (waiter !== undefined) return waiter.resolve(connection);
    connection.rest();
    this.#idle.push(connection);
    this.#sweep ??= setTimeout(() => this.#endIdle(), IDLE_TIMEOUT_MS).unref();
  }

  /** Closes a connection instead of giving it back. */
  discard(connection: PooledConnection): void {
    if (connection.lost) connection.destroy();
    else this.#sayGoodbye(connection);
    this.#remove(connection);
  }

  /** Waits up to 5 s for connections in use, then cuts them. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    clearTimeout(this.#sweep);
    for (let waiter = this.#nextWaiter(); waiter !== undefined; waiter = this.#nextWaiter()) waiter.reject(closedError());
    for (const connection of this.#idle.splice(0)) this.discard(connection);
    await this.#emptied();
    for (const connection of this.#open) connection.destroy();
    await Promise.all(this.#goodbyes);
  }

  #sayGoodbye(connection: PooledConnection): void {
    const goodbye = connection.end().finally(() => this.#goodbyes.delete(goodbye));
    this.#goodbyes.add(goodbye);
  }

  async #emptied(): Promise<void> {
    if (this.#open.size + this.#connecting === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_GRACE_MS);
      this.#onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #wait(timeoutMs: number): Promise<PooledConnection> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(this.#waitedTooLong(timeoutMs));
      }, timeoutMs);
      const waiter: Waiter = { resolve, reject, timer };
      this.#waiters.add(waiter);
      this.#connectForWaiters();
    });
  }

  #nextWaiter(): Waiter | undefined {
    const [waiter] = this.#waiters;
    if (waiter === undefined) return undefined;
    this.#waiters.delete(waiter);
    clearTimeout(waiter.timer);
    return waiter;
  }

  #connectForWaiters(): void {
    if (this.#closing !== undefined || this.#connecting >= this.#waiters.size) return;
    if (this.#open.size + this.#connecting < this.#options.size) void this.#connect();
  }

  async #connect(): Promise<void> {
    this.#connecting++;
    try {
      const connection = await PooledConnection.open(this.#options, (lost) => this.#onLost(lost));
      this.#connecting--;
      this.#open.add(connection);
      this.release(connection);
    } catch (error) {
      this.#connecting--;
      this.#reachable = false;
      this.#nextWaiter()?.reject(connectFailure("database.url", error));
      this.#afterRemoval();
    }
  }

  #onLost(connection: PooledConnection): void {
    const index = this.#idle.indexOf(connection);
    if (index >= 0) {
      this.#idle.splice(index, 1);
      this.#options.log.debug("an idle Postgres connection was lost");
      this.#remove(connection);
    }
    // One of several may have been ended by hand; the last one tells that the server is gone.
    if ([...this.#open].every((open) => open.lost)) this.#reachable = false;
  }

  #remove(connection: PooledConnection): void {
    this.#open.delete(connection);
    this.#afterRemoval();
  }

  #afterRemoval(): void {
    this.#connectForWaiters();
    if (this.#open.size + this.#connecting === 0) this.#onEmpty?.();
  }

  #endIdle(): void {
    this.#sweep = undefined;
    const keep = this.#idle.findIndex((connection) => connection.idleFor() < IDLE_TIMEOUT_MS);
    const expired = this.#idle.splice(0, keep < 0 ? this.#idle.length : keep);
    for (const connection of expired) this.discard(connection);
    if (this.#idle.length > 0) this.#sweep = setTimeout(() => this.#endIdle(), IDLE_TIMEOUT_MS).unref();
  }

  #waitedTooLong(timeoutMs: number): MeshError {
    if (!this.#reachable || this.#open.size === 0) return databaseUnavailable(`no connection to Postgres within ${timeoutMs} ms`);
    return new MeshOverloadedError(
      `all ${this.#options.size} connections of the pool were in use for ${timeoutMs} ms; raise database.poolSize or shorten transactions`,
    );
  }
}

function closedError(): MeshError {
  return databaseUnavailable("the storage is closed");
}
