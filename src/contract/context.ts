import type { Logger } from "../logger.js";
import type { MeshClient } from "./mesh-client.js";
import type { Settings } from "./descriptor.js";

/** JSON object that travels along the whole call chain and into events. */
export type Meta = Readonly<Record<string, unknown>>;

/** Who made the call: the node, and the action that was running there (null: outside any action, or unknown). */
export interface Caller {
  readonly nodeId: string;
  readonly action: string | null;
}

/** What is known of an event inside its handler. */
export interface EventInfo {
  /** The same for every delivery and attempt of one emit: the key to deduplicate effects outside this database. */
  readonly id: string;
  readonly name: string;
  /** 1 for the first try. */
  readonly attempt: number;
  readonly balanced: boolean;
  /** Database clock, ms since the epoch. */
  readonly emittedAtMs: number;
  /** Node that emitted. */
  readonly nodeId: string;
}

export interface ContextDatabase {
  /**
   * Rows of one statement. Placeholders are `?1`, `?2` … (or `$1`), never touched inside literals, quoted names,
   * comments or dollar quotes.
   */
  query<T = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<T[]>;
}

export interface EnqueueOptions {
  /** Earliest start, in ms from now. Default 0. */
  readonly delayMs?: number;
}

export interface ContextQueue {
  /** Resolves with the job's id once the job is committed (inside a transaction: once it is written there). */
  enqueue(queue: string, payload: unknown, options?: EnqueueOptions): Promise<string>;
}

export interface ContextPubsub {
  /** Broadcasts to every subscription of every node. */
  publish(event: string, payload: unknown): Promise<void>;
}

/** What every handler gets. */
export interface Context {
  readonly db: ContextDatabase;
  /** Runs `fn`; everything done through its argument commits or vanishes together. Nested: a savepoint. */
  transaction<T>(fn: (tx: Context) => Promise<T> | T): Promise<T>;
  readonly queue: ContextQueue;
  readonly pubsub: ContextPubsub;
  /** The secret's value, or null where no source has it. */
  secret(name: string): string | null;
  readonly log: Logger;
  /** Runs a host action in this process. */
  action<T = unknown>(name: string, args?: unknown): Promise<T>;
  readonly mesh: MeshClient;
  /** Aborts when the deadline has passed, the caller is gone, or the drain limit is reached. */
  readonly signal: AbortSignal;
  /** Remaining ms of the budget, never below 0; null without one. */
  readonly deadline: number | null;
  readonly requestId: string;
  readonly meta: Meta;
  readonly caller: Caller | null;
  /** Depth of the call chain: 1 for the first action. */
  readonly level: number;
  /** Set in event handlers only. */
  readonly event: EventInfo | undefined;
}

/** The service as its handlers see it: third argument of actions and events, second of lifecycle hooks. */
export interface ServiceSelf<
  TSettings = Settings,
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- narrowed by service({...}); open for classes
  TMethods = Readonly<Record<string, (...args: any[]) => any>>,
> {
  readonly name: string;
  readonly version: number;
  readonly nodeId: string;
  readonly settings: TSettings;
  readonly methods: TMethods;
  /** `ctx.mesh.call` of the handler's own context. */
  readonly call: MeshClient["call"];
  /** `ctx.mesh.emit` of the handler's own context. */
  readonly emit: MeshClient["emit"];
}
