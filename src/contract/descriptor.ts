import type { Context, ServiceSelf } from "./context.js";
import type { StandardSchemaV1 } from "./standard-schema.js";

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- constructors of user classes take anything
export type Class<T = object> = abstract new (...args: any[]) => T;

/** What `params` takes: a class with class-validator rules, or any Standard Schema. */
export type ParamsSchema = Class | StandardSchemaV1;

export interface RetryOptions {
  /** Tries after the first. Default 0. */
  readonly attempts?: number;
  /** Pause before the first retry, in ms. Default 50. */
  readonly delayMs?: number;
  /** Growth of the pause from retry to retry. Default 2. */
  readonly factor?: number;
  /** Share of the pause that is random, 0 to 1. Default 0.5. */
  readonly jitter?: number;
}

export type ActionHandler = (ctx: Context, args: unknown, self: ServiceSelf) => unknown;
export type EventHandler = (ctx: Context, payload: unknown, self: ServiceSelf) => unknown;
export type LifecycleHook = (ctx: Context, self: ServiceSelf) => unknown;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a method has the signature that its author gave it
export type ServiceMethod = (...args: any[]) => unknown;

export interface ActionDescriptor {
  readonly name: string;
  readonly handler: ActionHandler;
  readonly params?: ParamsSchema;
  readonly timeoutMs?: number;
  readonly retry?: RetryOptions;
}

export interface EventDescriptor {
  /** Event name or pattern. */
  readonly name: string;
  readonly balanced: boolean;
  readonly handler: EventHandler;
  /** Balanced group. Default: the service name. */
  readonly group?: string;
  readonly params?: ParamsSchema;
  /**
   * Deliveries handled at the same time on one node. Balanced: default is the host's `worker.concurrency`.
   * Broadcast: 1 per emitting node, which keeps their order; more gives the order up.
   */
  readonly concurrency?: number;
  readonly maxAttempts?: number;
  readonly retryDelayMs?: number;
  /** False: the handler's `ctx.db` works on the pool, and the job completes on its own. Default true. */
  readonly transaction?: boolean;
}

export type Settings = Readonly<Record<string, unknown>>;

/** Frozen data about one service: the same for a class and for `service({...})`. */
export interface ServiceDescriptor {
  readonly name: string;
  readonly version: number;
  readonly settings: Settings;
  readonly methods: Readonly<Record<string, ServiceMethod>>;
  readonly actions: Readonly<Record<string, ActionDescriptor>>;
  readonly events: Readonly<Record<string, EventDescriptor>>;
  readonly started: readonly LifecycleHook[];
  readonly stopped: readonly LifecycleHook[];
}

/**
 * A descriptor that knows the types of its actions, from `service({...})`: `S` looks like a class with a method for each. The
 * key exists for the compiler only.
 */
export interface ServiceDefinition<S = unknown> extends ServiceDescriptor {
  readonly [actionTypes]?: S;
}

declare const actionTypes: unique symbol;

/** `v1.users.create`: how an action is called from anywhere. */
export function fullActionName(service: Pick<ServiceDescriptor, "name" | "version">, action: string): string {
  return `v${service.version}.${service.name}.${action}`;
}
