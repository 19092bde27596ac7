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
  readonly reserved: boolean;
  readonly resolve: (connection: PooledConnection) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

const IDLE_TIMEOUT_MS = 30_000;
const CLOSE_GRACE_MS = 5_000;
/** Statements that wait for a connection; those of the reserve are counted apart. */
export const MAX_WAITERS = 10_000;

/**
 * Connections for queries, most recently used first: `size` for ordinary users, and one more that only reserved
 * statements can have, so that no number of long transactions holds up what keeps the node alive.
 *
 * Not pg's own pool, which knows no reserve and one limit for all callers and for connecting, so that a call could not
 * give up at its deadline. It also ties a caller to the connection made for it, even where another is free long before,
 * hands out what the server has closed until the end has been read, and when closed waits for whatever is in use.
 */
export class ConnectionPool {
  readonly #options: PoolOptions;
  readonly #open = new Set<PooledConnection>();
  readonly #idle: PooledConnection[] = [];
  /** In the hands of ordinary users. */
  readonly #lent = new Set<PooledConnection>();
  readonly #waiters = new Set<Waiter>();
  readonly #reserved = new Set<Waiter>();
  #connecting = 0;
  #mayPrepare = true;
  #reachable = true;
  /** Why the last connection could not be made. */
  #failure: MeshError | undefined;
  #sweep: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;
  readonly #goodbyes = new Set<Promise<void>>();
  #onEmpty: (() => void) | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  stats(): { total: number; idle: number; waiting: number; reachable: boolean } {
    return { total: this.#open.size, idle: this.#idle.length, waiting: this.#waiting, reachable: this.#reachable };
  }

  /** Every connection got must be given back by `release` or `discard`. */
  async acquire(timeoutMs: number, reserved = false): Promise<PooledConnection> {
    while (this.#closing === undefined) {
      const idle = reserved || this.#mayLend ? this.#idle.pop() : undefined;
      if (idle === undefined) return this.#wait(timeoutMs, reserved);
      if (!reserved) this.#lent.add(idle);
      if (await idle.wake()) return idle;
      this.discard(idle);
    }
    throw closedError();
  }

  release(connection: PooledConnection): void {
    if (!connection.reusable || this.#closing !== undefined) return this.discard(connection);
    this.#reachable = true;
    if (connection.curious) return void connection.learn().then(() => this.release(connection));
    this.#lent.delete(connection);
    const waiter = this.#nextWaiter();
    if (waiter !== undefined) return this.#serve(waiter, connection);
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

  /** Waits up to `graceMs` for connections in use, then cuts them. */
  close(graceMs = CLOSE_GRACE_MS): Promise<void> {
    return (this.#closing ??= this.#close(graceMs));
  }

  async #close(graceMs: number): Promise<void> {
    clearTimeout(this.#sweep);
    for (const waiter of [...this.#reserved, ...this.#waiters]) this.#dequeue(waiter).reject(closedError());
    for (const connection of this.#idle.splice(0)) this.discard(connection);
    await this.#emptied(graceMs);
    for (const connection of this.#open) connection.destroy();
    await Promise.all(this.#goodbyes);
  }

  #sayGoodbye(connection: PooledConnection): void {
    const goodbye = connection.end().finally(() => this.#goodbyes.delete(goodbye));
    this.#goodbyes.add(goodbye);
  }

  async #emptied(graceMs: number): Promise<void> {
    if (this.#open.size + this.#connecting === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, graceMs);
      this.#onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** One more may be lent to an ordinary user. */
  get #mayLend(): boolean {
    return this.#lent.size < this.#options.size;
  }

  get #waiting(): number {
    return this.#waiters.size + this.#reserved.size;
  }

  #wait(timeoutMs: number, reserved: boolean): Promise<PooledConnection> {
    if ((reserved ? this.#reserved : this.#waiters).size >= MAX_WAITERS) return Promise.reject(this.#tooManyWait());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#dequeue(waiter).reject(this.#waitedTooLong(timeoutMs)), timeoutMs);
      const waiter: Waiter = { reserved, resolve, reject, timer };
      this.#queueOf(waiter).add(waiter);
      this.#connectForWaiters();
    });
  }

  #queueOf(waiter: Waiter): Set<Waiter> {
    return waiter.reserved ? this.#reserved : this.#waiters;
  }

  #dequeue(waiter: Waiter): Waiter {
    this.#queueOf(waiter).delete(waiter);
    clearTimeout(waiter.timer);
    return waiter;
  }

  #nextWaiter(): Waiter | undefined {
    const [waiter] = this.#reserved.size > 0 || !this.#mayLend ? this.#reserved : this.#waiters;
    return waiter === undefined ? undefined : this.#dequeue(waiter);
  }

  #serve(waiter: Waiter, connection: PooledConnection): void {
    if (!waiter.reserved) this.#lent.add(connection);
    waiter.resolve(connection);
  }

  #connectForWaiters(): void {
    if (this.#closing !== undefined || this.#connecting >= this.#waiting) return;
    const { size } = this.#options;
    if (this.#open.size + this.#connecting > size) return;
    if (this.#reserved.size > 0 || this.#lent.size + this.#connecting < size) void this.#connect();
  }

  async #connect(): Promise<void> {
    this.#connecting++;
    try {
      const connection = await PooledConnection.open({
        ...this.#options,
        mayPrepare: () => this.#mayPrepare,
        onSessionChanged: () => this.#stopPreparing(),
        onLost: (lost) => this.#onLost(lost),
      });
      this.#connecting--;
      this.#failure = undefined;
      this.#open.add(connection);
      this.release(connection);
    } catch (error) {
      this.#connecting--;
      this.#reachable = false;
      this.#failure = connectFailure("database.url", error);
      // While others work, as where the server has no slot left, the next one released will do as well.
      if ([...this.#open].some((open) => !open.lost)) return;
      this.#nextWaiter()?.reject(this.#failure);
      this.#afterRemoval();
    }
  }

  #stopPreparing(): void {
    if (!this.#mayPrepare) return;
    this.#mayPrepare = false;
    this.#options.log.warn(
      "a statement that Postgres had prepared for a connection was gone, as where a pooler shares sessions unseen, or a function executed DEALLOCATE: from now on none are prepared",
    );
  }

  #onLost(connection: PooledConnection): void {
    // One that was discarded tells nothing of the server.
    if (!this.#open.has(connection)) return;
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
    this.#lent.delete(connection);
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

  #tooManyWait(): MeshError {
    return new MeshOverloadedError(
      `${MAX_WAITERS} statements and transactions wait for one of the ${this.#options.size} connections of the pool already; raise database.poolSize or do less at the same time`,
    );
  }

  #waitedTooLong(timeoutMs: number): MeshError {
    if (this.#failure !== undefined && this.#open.size < this.#options.size) return this.#failure;
    if (!this.#reachable || this.#open.size === 0) return databaseUnavailable(`no connection to Postgres within ${timeoutMs} ms`);
    return new MeshOverloadedError(
      `all ${this.#options.size} connections of the pool were in use for ${timeoutMs} ms; raise database.poolSize or shorten transactions`,
    );
  }
}

function closedError(): MeshError {
  return databaseUnavailable("the storage is closed");
}
