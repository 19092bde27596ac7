import type { Logger } from "../logger.js";
import type { Context, EventInfo, Meta, Caller } from "./context.js";
import type { EventBus, IncomingEvent, IncomingJob, Outbox } from "./messaging.js";
import type { Session, Storage } from "./storage.js";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

/** A point in time by which a call must be over. Travels as a duration, lives on the monotonic clock. */
export interface DeadlineView {
  readonly budgetMs: number;
  /** When it is over, on the clock of `performance.now()`. */
  readonly at: number;
  /** Never below 0. */
  remainingMs(): number;
}

/** Cancellation that costs nothing until somebody looks: `signal` makes its AbortController on first use. */
export interface CancellationView {
  readonly aborted: boolean;
  readonly reason: unknown;
  readonly signal: AbortSignal;
  /** Calls `listener` once on abort (at once, if already aborted). Returns the removal. */
  onAbort(listener: (reason: unknown) => void): () => void;
}

/** Who called whom, newest first: for `ctx.level`, and to name the chain when it is too deep. */
export interface CallChain {
  readonly action: string;
  readonly parent: CallChain | null;
}

/** Everything about one run of a handler that comes from outside: what woke it, for whom, and until when. */
export interface Scope {
  readonly requestId: string;
  readonly meta: Meta;
  readonly caller: Caller | null;
  readonly level: number;
  readonly chain: CallChain | null;
  readonly deadline: DeadlineView | null;
  readonly cancellation: CancellationView;
  /** Where `ctx.db`, emits and enqueues go. Default: the storage's pool. */
  readonly session?: Session;
  readonly event?: EventInfo;
}

/** The seam between the public context and plugins: what a plugin may know of the run behind a `ctx`. */
export interface ScopedContext extends Context {
  readonly scope: Scope;
  readonly session: Session;
}

export type TargetKind = "action" | "route" | "subscription" | "job" | "cron" | "lifecycle" | "client";

/** One handler, as the dispatcher runs it. Made once, run often. */
export interface Target {
  readonly kind: TargetKind;
  /** For logs and errors. */
  readonly name: string;
  readonly handler: (ctx: ScopedContext, args: unknown) => unknown;
  /** Returns the arguments that the handler gets, or throws `MeshValidationError`. */
  readonly validate?: (args: unknown) => unknown;
  /** Counts its runs. */
  readonly activity?: ActivityCount;
}

/** Each `begin` is followed by one `end`. Neither may throw. */
export interface ActivityCount {
  begin(): void;
  end(): void;
}

/** A handler that has begun. */
export interface BegunRun {
  /** What it has returned. */
  readonly result: unknown;
  /** The same where it is a promise, else null. */
  readonly pending: PromiseLike<unknown> | null;
  /** Must be called once, when the result is there. Does not throw. */
  end(): void;
}

/** The only way into any handler: context → validate → handler. Errors pass through unchanged. */
export interface Dispatcher {
  dispatch(target: Target, args: unknown, scope: Scope): Promise<unknown>;
  /** The same without a promise where the handler needs none: its result, or the promise of it; throws what the handler throws at once. */
  run(target: Target, args: unknown, scope: Scope): unknown;
  /** As `run`, where the caller waits for the result anyway, and sees to the end. */
  begin(target: Target, args: unknown, scope: Scope): BegunRun;
  /** A scope that starts a chain: new request id unless given, no deadline, cancelled only by the drain limit. */
  rootScope(overrides?: Partial<Scope>): Scope;
  /** A context outside any handler (the mesh client of the host). */
  context(scope: Scope): ScopedContext;
}

export type ActionFunction = (ctx: Context, args: never) => unknown;
export type RouteFunction = (request: Request, env: RouteEnv) => Response | null | Promise<Response | null>;
export type SubscriptionFunction = (ctx: Context, payload: never) => unknown;
export type JobFunction = (ctx: Context, payload: never) => unknown;
export type CronFunction = (ctx: Context, tick: CronTick) => unknown;
export type HookFunction = (ctx: Context) => unknown;

/** Context of one request, and a bag that routes share while they pass it on. */
export interface RouteEnv extends Context {
  get<T = unknown>(key: string): T | undefined;
  set(key: string, value: unknown): void;
}

export interface CronTick {
  /** The moment that this tick stands for, database clock, ms since the epoch. */
  readonly scheduledAtMs: number;
  /** Earlier moments that passed while no node ran; this tick stands for them too. */
  readonly missed: number;
}

export interface WorkerOptions {
  /** Jobs of this queue handled at the same time on this node. Default: the host's `worker.concurrency`. */
  readonly concurrency?: number;
  readonly maxAttempts?: number;
  readonly retryDelayMs?: number;
  /** False: `ctx.db` works on the pool and the job completes on its own. Default true. */
  readonly transaction?: boolean;
}

export interface CronOptions {
  /** IANA time zone. Default: UTC. */
  readonly timezone?: string;
}

export interface ActionRegistration { readonly kind: "action"; readonly name: string; readonly handler: ActionFunction }
export interface RouteRegistration { readonly kind: "route"; readonly name: string; readonly handler: RouteFunction }
/** A route on Node's own request and response, in the same order as the others. False passes on; then the body must be unread. */
export interface RawRouteRegistration {
  readonly kind: "raw-route";
  readonly name: string;
  readonly handler: (request: IncomingMessage, response: ServerResponse, env: HostEnv) => boolean | Promise<boolean>;
}
/**
 * An HTTP Upgrade to `protocol` (the token of the `Upgrade` header). Asked in the order of the routes, after those that
 * stand before it: a `route` that answers refuses the upgrade. True: the handler owns the socket, and has written 101
 * or an answer of its own. An upgrade to any other protocol is ignored, and the request handled as a plain one.
 */
export interface UpgradeRegistration {
  readonly kind: "upgrade";
  readonly name: string;
  readonly protocol: string;
  readonly handler: (request: IncomingMessage, socket: Duplex, head: Buffer, env: HostEnv) => boolean | Promise<boolean>;
}
export interface SubscriptionRegistration { readonly kind: "subscription"; readonly event: string; readonly handler: SubscriptionFunction; readonly concurrency?: number }
export interface WorkerRegistration { readonly kind: "worker"; readonly queue: string; readonly handler: JobFunction; readonly options: WorkerOptions }
/**
 * Balanced delivery to a group. The host remembers (group, pattern) in the database before the first claim. `match` is
 * what one job runs: it is chosen by the owner, since one delivery runs every matching handler of the group once.
 */
export interface BalancedRegistration {
  readonly kind: "balanced";
  readonly group: string;
  readonly pattern: string;
  readonly target: Target;
  readonly options: WorkerOptions;
}
/** Broadcast delivery with the event's envelope, for plugins. */
export interface BroadcastRegistration {
  readonly kind: "broadcast";
  readonly pattern: string;
  readonly target: Target;
  readonly concurrency?: number;
}
export interface CronRegistration { readonly kind: "cron"; readonly name: string; readonly schedule: string; readonly handler: CronFunction; readonly options: CronOptions }
export interface HookRegistration { readonly kind: "start" | "stop"; readonly handler: HookFunction }
/**
 * Parts of a plugin's life that need the host. In order of a host's life: `ready` after the engines are up and before the
 * first message is taken in; `listening` after the HTTP server is bound; `drain` when stopping begins, while handlers
 * still run; `close` after they have ended and while Postgres is still there. `close` is called for every plugin whose
 * `ready` was called, also where that failed.
 */
export interface LifecycleRegistration {
  readonly kind: "lifecycle";
  readonly name: string;
  ready?(env: HostEnv): void | Promise<void>;
  listening?(env: HostEnv): void | Promise<void>;
  drain?(env: HostEnv): void | Promise<void>;
  close?(env: HostEnv): void | Promise<void>;
}
export interface ContextExtensionRegistration { readonly kind: "context-extension"; readonly key: string; readonly factory: (ctx: ScopedContext) => unknown }
/** Makes `value` readable as `host[key]`. The mesh exposes its client this way. */
export interface HostExtensionRegistration { readonly kind: "host-extension"; readonly key: "mesh"; readonly value: object }

export interface Plugin {
  readonly kind: "plugin";
  readonly name: string;
  readonly dependsOn: readonly string[];
  readonly registrations: readonly Registration[];
}

export type Registration =
  | ActionRegistration | RouteRegistration | RawRouteRegistration | UpgradeRegistration | SubscriptionRegistration | WorkerRegistration
  | BalancedRegistration | BroadcastRegistration | CronRegistration | HookRegistration | LifecycleRegistration
  | ContextExtensionRegistration | HostExtensionRegistration | Plugin;

/** What can be added to and taken from a running host. */
export type LiveRegistration = BalancedRegistration | BroadcastRegistration;

export interface HealthReport {
  readonly status: "ok" | "degraded" | "failing";
  readonly [detail: string]: unknown;
}

/** What the host gives to plugins. */
export interface HostEnv {
  readonly name: string;
  /** UUID of this boot. */
  readonly nodeId: string;
  readonly log: Logger;
  readonly storage: Storage;
  readonly bus: EventBus;
  readonly outbox: Outbox;
  readonly dispatcher: Dispatcher;
  /** Bound URL of the HTTP server, or null before `listening` and where there is none. */
  readonly url: string | null;
  /** Address that the HTTP server is bound to, null where `url` is: `0.0.0.0` and `::` stand for all of the machine's. */
  readonly address: string | null;
  readonly draining: boolean;
  secret(name: string): string | null;
  /** Runs a host action in exactly this scope: level and chain are the caller's to count. */
  action(name: string, args: unknown, scope: Scope): Promise<unknown>;
  /** Adds deliveries to the running host; resolves when they are in force. The returned function takes them off and waits for those under way. */
  attach(registrations: readonly LiveRegistration[]): Promise<() => Promise<void>>;
  /** A named check in the body of `/readyz`; `failing` makes it answer 503. */
  health(name: string, check: () => HealthReport): void;
}

export type { IncomingEvent, IncomingJob };
