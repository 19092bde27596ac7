import type { Meta } from "./context.js";
import type { Transaction } from "./storage.js";

/** What a message says of where it came from. */
export interface MessageOrigin {
  readonly requestId: string;
  readonly meta: Meta;
}

export interface OutgoingEvent extends MessageOrigin {
  readonly name: string;
  /** Any JSON value; `undefined` becomes null. At most 1 MiB serialised, else `MeshPayloadTooLargeError`. */
  readonly payload: unknown;
}

export interface OutgoingJob extends MessageOrigin {
  readonly queue: string;
  readonly payload: unknown;
  readonly delayMs?: number;
}

/** `all`: broadcast handlers and balanced groups. */
export type Reach = "all" | "broadcast" | "balanced";

/**
 * The only writer of events and jobs. Without `tx` it shares commits between calls in flight and resolves after the
 * commit; with `tx` it writes there at once and wakes receivers after that commit. Order of calls is order of events.
 */
export interface Outbox {
  /** Resolves with how many balanced groups got the event; 0 is no error here. */
  emit(event: OutgoingEvent, reach: Reach, tx?: Transaction | null): Promise<number>;
  /** Resolves with the job's id. */
  enqueue(job: OutgoingJob, tx?: Transaction | null): Promise<string>;
}

/** An event as it arrives. */
export interface IncomingEvent extends MessageOrigin {
  /** UUID given at the emit. */
  readonly id: string;
  readonly name: string;
  readonly payload: unknown;
  readonly nodeId: string;
  /** Database clock. */
  readonly emittedAtMs: number;
}

export interface SubscribeOptions {
  /** Events of one emitter handled at the same time. Default 1: in order. */
  readonly concurrency?: number;
}

/** Broadcast events, on the receiving side. */
export interface EventBus {
  /**
   * `pattern` is an event name, with `*` for one segment and `**` for any number. A failure of `handler` is logged and
   * touches nobody else. Returns the unsubscription.
   */
  subscribe(pattern: string, handler: (event: IncomingEvent) => unknown, options?: SubscribeOptions): () => void;
}

/** A job or balanced event as its handler's engine gets it. */
export interface IncomingJob extends MessageOrigin {
  /** Job id. */
  readonly id: string;
  /** Id of the event it carries; for a plain job the job id. */
  readonly eventId: string;
  readonly queue: string;
  /** Event name; null for a plain job. */
  readonly event: string | null;
  /** Balanced group; null for a plain job. */
  readonly group: string | null;
  readonly payload: unknown;
  /** 1 for the first try. */
  readonly attempt: number;
  readonly nodeId: string;
  readonly emittedAtMs: number;
}
