import type { Meta, Context } from "./context.js";
import type { Class, RetryOptions, ServiceDefinition } from "./descriptor.js";

export type Strategy = "local-first" | "round-robin" | "random" | "cpu";

export interface CallOptions<T = unknown> {
  /** Budget of the whole call, retries included, in ms. Default: the mesh's `defaultTimeoutMs`; never more than what remains to the caller. */
  readonly timeoutMs?: number;
  /** Limit of one attempt, in ms. Default: what remains, divided by the attempts left. */
  readonly attemptTimeoutMs?: number;
  readonly retry?: RetryOptions;
  readonly strategy?: Strategy;
  /** Pins the call to one node. */
  readonly nodeId?: string;
  /** Supplies the result after the last attempt has failed. */
  readonly fallback?: (error: Error) => T | Promise<T>;
  /** Cancels the call: the caller gets `MeshCancelledError`, the handler's `ctx.signal` aborts. */
  readonly signal?: AbortSignal;
  /** Merged over the context's meta, for this call and what follows from it. */
  readonly meta?: Meta;
}

export interface EmitOptions {
  /** True: balanced groups only. False: broadcast handlers only. Left out: both. */
  readonly balanced?: boolean;
}

export interface ServiceInfo {
  readonly name: string;
  readonly version: number;
  /** Full action names. */
  readonly actions: readonly string[];
  /** Event names and patterns. */
  readonly events: readonly string[];
}

export interface Peer {
  readonly nodeId: string;
  readonly advertisedUrl: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly services: readonly ServiceInfo[];
  readonly startedAtMs: number;
  readonly lastHeartbeatMs: number;
}

export interface WaitForOptions {
  /** Default 30000. Past it: `MeshTimeoutError` that names what is missing. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** `(next) => (name, args, options) => Promise`; the first listed is outermost. */
export type CallNext = (name: string, args: unknown, options: CallOptions) => Promise<unknown>;
export type CallMiddleware = (next: CallNext) => CallNext;

/**
 * The methods of a service class that take a context first, or nothing, as calls: `(args, options?) => Promise<result>`;
 * other members are `never`. Which of them are actions, only their decorators know. No key is filtered out: that would
 * make TypeScript resolve every member at once, and refuse services that call themselves or each other.
 */
export type ServiceClient<S> = { readonly [K in keyof S]: ClientMethod<S[K]> };

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- infers from handlers of any signature
type ClientMethod<F> = F extends (...args: infer P extends any[]) => infer T
  ? P extends readonly [infer C, ...infer R]
    ? Context extends C
      ? ClientSignature<R, Awaited<T>>
      : never
    : P extends readonly []
      ? ClientSignature<[], Awaited<T>>
      : never
  : never;

type ClientSignature<R extends readonly unknown[], T> = R extends readonly []
  ? (args?: undefined, options?: CallOptions<T>) => Promise<T>
  : undefined extends R[0]
    ? (args?: R[0], options?: CallOptions<T>) => Promise<T>
    : (args: R[0], options?: CallOptions<T>) => Promise<T>;

export interface MeshClient {
  call<T = unknown>(name: string, args?: unknown, options?: CallOptions<T>): Promise<T>;
  /**
   * Typed client of a service class, or of what `service({...})` returned: `await ctx.mesh.service(UsersService).create({ email })`.
   * Where only the type is at hand: `ctx.mesh.service<UsersService>("v1.users")`.
   */
  service<S extends object>(service: Class<S> | ServiceDefinition<S> | string): ServiceClient<S>;
  /** Resolves once the event is committed (inside a transaction: once it is written there). */
  emit(event: string, payload: unknown, options?: EmitOptions): Promise<void>;
  /** UUID of this boot of this node. */
  nodeId(): string;
  /** Live peers, without this node. */
  peers(): readonly Peer[];
  /** Resolves when each of `names` (services `v1.users` or actions `v1.users.create`) can be called from here. */
  waitFor(names: string | readonly string[], options?: WaitForOptions): Promise<void>;
}

/** `host.mesh`: the client for use outside handlers. */
export interface HostMesh extends MeshClient {
  /** Adds services to the running node. Peers see them within 1 s. All or none. */
  register(...services: readonly ServiceSource[]): Promise<void>;
  /** Takes services (`v1.reports`) off the running node, after their calls under way have ended. */
  unregister(...names: readonly string[]): Promise<void>;
}

/** A class with `@Service`, an instance of one, or a definition from `service({...})`. */
export type ServiceSource = Class | object;
