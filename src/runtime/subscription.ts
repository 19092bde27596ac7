import { setImmediate as eventLoopTurn } from "node:timers/promises";
import type { IncomingEvent } from "../contract/messaging.js";
import { Run } from "../pipeline/in-flight.js";
import { isThenable } from "../pipeline/thenable.js";
import { compilePattern } from "./event-pattern.js";
import { Fifo } from "./fifo.js";

export type BroadcastHandler = (event: IncomingEvent) => unknown;

/** What a subscription tells its owner. None of it may throw. */
export interface SubscriptionOwner {
  onBegin(run: Run): void;
  onEnd(run: Run): void;
  onFailure(subscription: Subscription, event: IncomingEvent, error: unknown): void;
  /** The backlog is full: the subscription should get nothing more, or memory grows. */
  onFull(subscription: Subscription): void;
  /** Half of a full backlog is free again. */
  onRoom(): void;
}

interface Delivery {
  readonly event: IncomingEvent;
  readonly bytes: number;
}

/** Events of one emitter: handled in order, `concurrency` at a time. */
interface Lane {
  readonly waiting: Fifo<Delivery>;
  running: number;
}

export const MAX_WAITING = 10_000;
export const MAX_BYTES = 16 * 1024 * 1024;
/** Handlers that never wait must not starve the rest of the process: so long, and so many deliveries between looks at the clock. */
const TURN_MS = 5;
const DELIVERIES_A_LOOK = 20;

/** One handler, and the events on their way to it. */
export class Subscription {
  readonly pattern: string;
  readonly matches: (name: string) => boolean;
  readonly #handler: BroadcastHandler;
  readonly #concurrency: number;
  readonly #owner: SubscriptionOwner;
  /** By emitting node; only those with something to do. */
  readonly #lanes = new Map<string, Lane>();
  #waiting = 0;
  #bytes = 0;
  #full = false;
  #ended = false;
  /** It gets its events apart from the others. Its owner's mark. */
  behind = false;

  constructor(pattern: string, handler: BroadcastHandler, concurrency: number, owner: SubscriptionOwner) {
    this.pattern = pattern;
    this.matches = compilePattern(pattern);
    this.#handler = handler;
    this.#concurrency = concurrency;
    this.#owner = owner;
  }

  /** From a full backlog until half of it is free. */
  get full(): boolean {
    return this.#full;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Queues the event. The handler does not run before this returns. */
  add(event: IncomingEvent, bytes: number): void {
    if (this.#ended) return;
    let lane = this.#lanes.get(event.nodeId);
    if (lane === undefined) this.#lanes.set(event.nodeId, (lane = { waiting: new Fifo(), running: 0 }));
    lane.waiting.push({ event, bytes });
    this.#take(bytes);
    if (lane.running >= this.#concurrency) return;
    lane.running++;
    void this.#run(event.nodeId, lane);
  }

  /** Drops what the handler has not begun, and takes nothing more. */
  end(): void {
    this.#ended = true;
    for (const { waiting } of this.#lanes.values()) {
      for (let delivery = waiting.shift(); delivery !== undefined; delivery = waiting.shift()) this.#release(delivery.bytes);
    }
  }

  /** Never rejects. */
  async #run(nodeId: string, lane: Lane): Promise<void> {
    await null;
    let turn = performance.now();
    for (let count = 1, delivery = lane.waiting.shift(); delivery !== undefined; count++, delivery = lane.waiting.shift()) {
      const running = this.#handle(delivery.event);
      if (running !== undefined) await running;
      this.#release(delivery.bytes);
      if (count % DELIVERIES_A_LOOK !== 0 || performance.now() - turn < TURN_MS) continue;
      await eventLoopTurn();
      turn = performance.now();
    }
    if (--lane.running === 0) this.#lanes.delete(nodeId);
  }

  /** A promise, which never rejects, only where the handler gives one. */
  #handle(event: IncomingEvent): Promise<void> | undefined {
    const run = new Run(event.name);
    this.#owner.onBegin(run);
    try {
      const result = this.#handler(event);
      if (isThenable(result)) return this.#settle(result, event, run);
    } catch (error) {
      this.#owner.onFailure(this, event, error);
    }
    this.#owner.onEnd(run);
    return undefined;
  }

  async #settle(result: PromiseLike<unknown>, event: IncomingEvent, run: Run): Promise<void> {
    try {
      await result;
    } catch (error) {
      this.#owner.onFailure(this, event, error);
    }
    this.#owner.onEnd(run);
  }

  #take(bytes: number): void {
    this.#waiting++;
    this.#bytes += bytes;
    if (this.#full || (this.#waiting < MAX_WAITING && this.#bytes < MAX_BYTES)) return;
    this.#full = true;
    this.#owner.onFull(this);
  }

  #release(bytes: number): void {
    this.#waiting--;
    this.#bytes -= bytes;
    if (!this.#full || this.#waiting > MAX_WAITING / 2 || this.#bytes > MAX_BYTES / 2) return;
    this.#full = false;
    this.#owner.onRoom();
  }
}
