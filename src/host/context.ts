import { MeshCancelledError, MeshConfigurationError, MeshTimeoutError } from "../errors.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { checkName } from "./names.js";
import type { Logger } from "../logger.js";
import type { Caller, Context, ContextDatabase, ContextPubsub, ContextQueue, EnqueueOptions, EventInfo, Meta } from "../contract/context.js";
import type { MeshClient } from "../contract/mesh-client.js";
import type { Outbox } from "../contract/messaging.js";
import type { ContextExtensionRegistration, RouteEnv, Scope, ScopedContext } from "../contract/registration.js";
import type { RequestScope } from "../runtime/http-server.js";
import type { QueryOptions, Session, Storage, Transaction } from "../contract/storage.js";

/** What all contexts of one host share. */
export interface ContextServices {
  readonly storage: Storage;
  readonly outbox: Outbox;
  readonly log: Logger;
  secret(name: string): string | null;
  /** SQL with `?1` placeholders → SQL with `$1` placeholders. */
  rewrite(sql: string): string;
  /** Runs a host action as a step of the call chain of `scope`. */
  callAction(name: string, args: unknown, scope: Scope): Promise<unknown>;
}

export type ContextClass = new (services: ContextServices, scope: Scope, name: string) => HostContext;

/** Longest wait for a pooled connection. */
const ACQUIRE_TIMEOUT_MS = 5_000;
/** Of the time that remains, what may be spent waiting for a connection: who has asked must hear of it before giving up. */
const ACQUIRE_SHARE = 0.8;
/** A statement is stopped so long after the deadline: by then the caller has been told of that, and not of the statement. */
const AFTER_DEADLINE_MS = 500;
/** The handler's own statements may take their time: a nightly report does. */
const NO_DEADLINE: QueryOptions = { answerTimeoutMs: Infinity };
const LONGEST_DELAY_MS = 10 * 365 * 24 * 3_600_000;

/** Made for each run of a handler, so it makes its parts when they are first used. */
export class HostContext implements ScopedContext {
  readonly scope: Scope;
  readonly #services: ContextServices;
  readonly #name: string;
  #cancellation: Cancellation | undefined;
  #parts: HandlerParts | undefined;
  #log: Logger | undefined;
  #extensions: Map<string, unknown> | undefined;

  /** `name` is that of the handler, for logs and errors. */
  constructor(services: ContextServices, scope: Scope, name: string) {
    this.#services = services;
    this.scope = scope;
    this.#name = name;
  }

  get session(): Session {
    return this.scope.session ?? this.#services.storage;
  }

  get db(): ContextDatabase {
    return (this.#parts ??= new HandlerParts(this, this.#services));
  }

  get queue(): ContextQueue {
    return (this.#parts ??= new HandlerParts(this, this.#services));
  }

  get pubsub(): ContextPubsub {
    return (this.#parts ??= new HandlerParts(this, this.#services));
  }

  async transaction<T>(fn: (tx: Context) => Promise<T> | T): Promise<T> {
    const options = this.admit();
    return this.session.transaction(async (tx) => fn(this.#within(tx)), options);
  }

  secret(name: string): string | null {
    return this.#services.secret(name);
  }

  get log(): Logger {
    return (this.#log ??= this.#services.log.child({ requestId: this.scope.requestId, handler: this.#name }));
  }

  action<T = unknown>(name: string, args?: unknown): Promise<T> {
    return this.#services.callAction(name, args, this.scope) as Promise<T>;
  }

  /** Replaced by the mesh's context extension. */
  get mesh(): MeshClient {
    throw meshMissing("ctx.mesh");
  }

  get signal(): AbortSignal {
    return this.#ownCancellation().signal;
  }

  get deadline(): number | null {
    return this.scope.deadline === null ? null : this.scope.deadline.remainingMs();
  }

  get requestId(): string {
    return this.scope.requestId;
  }

  get meta(): Meta {
    return this.scope.meta;
  }

  get caller(): Caller | null {
    return this.scope.caller;
  }

  get level(): number {
    return this.scope.level;
  }

  get event(): EventInfo | undefined {
    return this.scope.event;
  }

  /** @internal The handler has ended: lets go of what outlives it. */
  end(): void {
    this.#cancellation?.dispose();
  }

  /** @internal Throws where the run is over already; otherwise says how long a statement may take. */
  admit(): QueryOptions {
    const { cancellation, deadline } = this.scope;
    if (cancellation.aborted) throw cancellationError(cancellation.reason, this.#name);
    if (deadline === null) return NO_DEADLINE;
    const remaining = deadline.remainingMs();
    if (remaining <= 0) throw new MeshTimeoutError(this.#name, deadline.budgetMs);
    return { acquireTimeoutMs: Math.min(ACQUIRE_TIMEOUT_MS, remaining * ACQUIRE_SHARE), answerTimeoutMs: remaining + AFTER_DEADLINE_MS };
  }

  /** @internal */
  extension(key: string, factory: (ctx: ScopedContext) => unknown): unknown {
    const made = (this.#extensions ??= new Map());
    if (!made.has(key)) made.set(key, factory(this));
    return made.get(key);
  }

  /** The signal hangs on a cancellation of this handler, so that a long-lived one above gathers no listeners. */
  #ownCancellation(): Cancellation {
    return (this.#cancellation ??= new Cancellation(this.scope.cancellation));
  }

  #within(tx: Transaction): Context {
    const Same = this.constructor as ContextClass;
    return new Same(this.#services, { ...this.scope, session: tx, cancellation: this.#ownCancellation() }, this.#name);
  }
}

/** `ctx.db`, `ctx.queue` and `ctx.pubsub` in one object: a handler that uses one of them most often uses another. */
class HandlerParts implements ContextDatabase, ContextQueue, ContextPubsub {
  readonly #ctx: HostContext;
  readonly #services: ContextServices;

  constructor(ctx: HostContext, services: ContextServices) {
    this.#ctx = ctx;
    this.#services = services;
  }

  async query<T = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<T[]> {
    const options = this.#ctx.admit();
    return this.#ctx.session.query<T>(this.#services.rewrite(sql), params, options);
  }

  async enqueue(queue: string, payload: unknown, options: EnqueueOptions = {}): Promise<string> {
    checkName("a queue", queue);
    const { requestId, meta } = this.#ctx.scope;
    const delayMs = checkDelay(options.delayMs ?? 0);
    const tx = await this.#transaction();
    return this.#services.outbox.enqueue({ queue, payload, requestId, meta, delayMs }, tx);
  }

  async publish(event: string, payload: unknown): Promise<void> {
    checkName("an event", event);
    const { requestId, meta } = this.#ctx.scope;
    const tx = await this.#transaction();
    await this.#services.outbox.emit({ name: event, payload, requestId, meta }, "broadcast", tx);
  }

  #transaction(): Promise<Transaction | null> | null {
    return this.#ctx.scope.session === undefined ? null : this.#ctx.scope.session.joinTransaction();
  }
}

function checkDelay(delayMs: unknown): number {
  if (typeof delayMs === "number" && delayMs >= 0 && delayMs <= LONGEST_DELAY_MS) return delayMs;
  throw new MeshConfigurationError(`option "delayMs" must be a number of ms from 0 to ${LONGEST_DELAY_MS}; got ${String(delayMs)}`);
}

function cancellationError(reason: unknown, name: string): Error {
  return reason instanceof Error ? reason : new MeshCancelledError(`cancelled: ${name}`, { cause: reason });
}

export function meshMissing(what: string): MeshConfigurationError {
  return new MeshConfigurationError(`${what} needs the mesh: host.register(chimpbaseMesh({ services: [...] }))`, { code: "MESH_NOT_REGISTERED" });
}

/** Keys that no context extension may take; `mesh` is there to be taken. */
export const RESERVED_KEYS: ReadonlySet<string> = new Set([
  ...Object.getOwnPropertyNames(HostContext.prototype).filter((key) => key !== "mesh"),
  // A context with `then` would be taken for a promise.
  "scope", "get", "set", "then", "__proto__",
]);

export interface ContextClasses {
  readonly Handler: ContextClass;
  readonly Route: ContextClass;
}

/** The classes of one host's contexts: extensions are getters of their prototype, so that a context costs the same with and without. */
export function defineContexts(extensions: readonly ContextExtensionRegistration[]): ContextClasses {
  class Handler extends HostContext {}
  for (const { key, factory } of extensions) {
    Object.defineProperty(Handler.prototype, key, {
      configurable: true,
      get(this: HostContext) {
        return this.extension(key, factory);
      },
    });
  }

  class Route extends Handler implements RouteEnv {
    /** The request's own: a response may stream on after the handler has returned. */
    override get signal(): AbortSignal {
      return this.scope.cancellation.signal;
    }

    get<T = unknown>(key: string): T | undefined {
      return (this.scope as RequestScope).bag.get(key) as T | undefined;
    }

    set(key: string, value: unknown): void {
      (this.scope as RequestScope).bag.set(key, value);
    }
  }

  return { Handler, Route };
}
