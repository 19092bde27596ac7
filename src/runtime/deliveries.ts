import { setImmediate } from "node:timers/promises";
import type { Logger } from "../logger.js";
import type { IncomingEvent, SubscribeOptions } from "../contract/messaging.js";
import { MeshConfigurationError } from "../errors.js";
import { compilePattern } from "./event-pattern.js";
import { copies } from "./event-record.js";
import { Fifo } from "./fifo.js";

export interface DeliveriesOptions {
  readonly log: Logger;
  /** A subscription that was full has half of its backlog free again. */
  readonly onRoom: () => void;
}

/** A subscription, as the reader of the log sees it. */
export interface Follower {
  /** From a full backlog until half of it is free. */
  readonly full: boolean;
  /** Unsubscribed. */
  readonly ended: boolean;
}

interface Delivery {
  readonly event: IncomingEvent;
  readonly bytes: number;
}

/** Events of one emitter for one subscription: handled in order, `concurrency` at a time. */
interface Lane {
  readonly waiting: Fifo<Delivery>;
  running: number;
}

type Handler = (event: IncomingEvent) => unknown;

class Subscription implements Follower {
  readonly matches: (name: string) => boolean;
  /** By emitting node; only those with something to do. */
  readonly lanes = new Map<string, Lane>();
  waiting = 0;
  bytes = 0;
  full = false;
  ended = false;
  /** Gets its events by `addTo` alone. */
  behind = false;

  constructor(readonly pattern: string, readonly handler: Handler, readonly concurrency: number) {
    this.matches = compilePattern(pattern);
  }
}

/** Backlog of one subscription. */
const MAX_WAITING = 10_000;
const MAX_BYTES = 16 * 1024 * 1024;
const NONE: readonly Follower[] = [];
const MAX_CACHED_NAMES = 5_000;
/** Deliveries of one lane between two turns of the event loop: handlers that never wait must not starve the rest. */
const DELIVERIES_A_TURN = 100;

function checkSubscription(pattern: unknown, options: SubscribeOptions): SubscribeOptions {
  if (typeof pattern !== "string" || pattern === "") throw new MeshConfigurationError(`a subscription's pattern must be a non-empty string, not ${String(pattern)}`);
  const { concurrency = 1 } = options;
  if (Number.isInteger(concurrency) && concurrency > 0) return options;
  throw new MeshConfigurationError(`concurrency of the subscription to "${pattern}" must be a whole number from 1, not ${concurrency}`);
}

/** Subscriptions, and the events on their way to them. */
export class Deliveries {
  readonly #options: DeliveriesOptions;
  readonly #exact = new Map<string, Set<Subscription>>();
  readonly #patterns = new Set<Subscription>();
  readonly #matching = new Map<string, readonly Subscription[]>();
  readonly #handling = new Set<IncomingEvent>();
  #newlyFull: Subscription[] = [];

  constructor(options: DeliveriesOptions) {
    this.#options = options;
  }

  subscribe(pattern: string, handler: Handler, options: SubscribeOptions = {}): () => void {
    const { concurrency = 1 } = checkSubscription(pattern, options);
    const subscription = new Subscription(pattern, handler, concurrency);
    this.#shelf(pattern).add(subscription);
    this.#matching.clear();
    return () => this.#unsubscribe(subscription);
  }

  /** Queues the event for every subscription that matches and is not behind. No handler runs before this returns. */
  add(event: IncomingEvent, bytes: number): void {
    const subscriptions = this.#subscriptionsTo(event.name);
    if (subscriptions.length === 0) return;
    const each = copies(event, subscriptions.length);
    for (let index = 0; index < each.length; index++) {
      const subscription = subscriptions[index]!;
      if (!subscription.behind) this.#enqueue(subscription, { event: each[index]!, bytes });
    }
  }

  /** The same for one subscription. */
  addTo(follower: Follower, event: IncomingEvent, bytes: number): void {
    const subscription = follower as Subscription;
    if (!subscription.ended && subscription.matches(event.name)) this.#enqueue(subscription, { event, bytes });
  }

  /** Subscriptions that have become full since the last call. From now on they are behind, until `rejoin`. */
  takeFull(): readonly Follower[] {
    if (this.#newlyFull.length === 0) return NONE;
    const taken = this.#newlyFull;
    this.#newlyFull = [];
    for (const subscription of taken) subscription.behind = true;
    return taken;
  }

  /** The subscription has caught up. */
  rejoin(follower: Follower): void {
    (follower as Subscription).behind = false;
  }

  /** Names of the events whose handlers run now. */
  inFlight(): readonly string[] {
    return Array.from(this.#handling, (event) => event.name);
  }

  /** Drops what no handler has begun. */
  clear(): void {
    for (const subscription of [...this.#patterns, ...Array.from(this.#exact.values(), (set) => [...set]).flat()]) this.#drop(subscription);
  }

  #shelf(pattern: string): Set<Subscription> {
    if (pattern.includes("*")) return this.#patterns;
    let shelf = this.#exact.get(pattern);
    if (shelf === undefined) this.#exact.set(pattern, (shelf = new Set()));
    return shelf;
  }

  #unsubscribe(subscription: Subscription): void {
    const shelf = this.#shelf(subscription.pattern);
    shelf.delete(subscription);
    if (shelf.size === 0) this.#exact.delete(subscription.pattern);
    this.#matching.clear();
    subscription.ended = true;
    this.#drop(subscription);
  }

  #subscriptionsTo(name: string): readonly Subscription[] {
    let found = this.#matching.get(name);
    if (found === undefined) {
      found = [...(this.#exact.get(name) ?? []), ...[...this.#patterns].filter((subscription) => subscription.matches(name))];
      if (this.#matching.size >= MAX_CACHED_NAMES) this.#matching.clear();
      this.#matching.set(name, found);
    }
    return found;
  }

  #enqueue(subscription: Subscription, delivery: Delivery): void {
    const { nodeId } = delivery.event;
    let lane = subscription.lanes.get(nodeId);
    if (lane === undefined) subscription.lanes.set(nodeId, (lane = { waiting: new Fifo(), running: 0 }));
    lane.waiting.push(delivery);
    this.#take(subscription, delivery.bytes);
    if (lane.running >= subscription.concurrency) return;
    lane.running++;
    void this.#run(subscription, nodeId, lane);
  }

  /** Never rejects. */
  async #run(subscription: Subscription, nodeId: string, lane: Lane): Promise<void> {
    await null;
    for (let count = 1, delivery = lane.waiting.shift(); delivery !== undefined; count++, delivery = lane.waiting.shift()) {
      await this.#handle(subscription, delivery.event);
      this.#release(subscription, delivery.bytes);
      if (count % DELIVERIES_A_TURN === 0) await setImmediate();
    }
    if (--lane.running === 0) subscription.lanes.delete(nodeId);
  }

  async #handle(subscription: Subscription, event: IncomingEvent): Promise<void> {
    this.#handling.add(event);
    try {
      await subscription.handler(event);
    } catch (error) {
      this.#options.log.error("event handler failed", { event: event.name, eventId: event.id, subscription: subscription.pattern, err: error });
    } finally {
      this.#handling.delete(event);
    }
  }

  #drop(subscription: Subscription): void {
    for (const { waiting } of subscription.lanes.values()) {
      for (let delivery = waiting.shift(); delivery !== undefined; delivery = waiting.shift()) this.#release(subscription, delivery.bytes);
    }
  }

  #take(subscription: Subscription, bytes: number): void {
    subscription.waiting++;
    subscription.bytes += bytes;
    if (subscription.full || (subscription.waiting < MAX_WAITING && subscription.bytes < MAX_BYTES)) return;
    subscription.full = true;
    if (subscription.behind) return;
    this.#newlyFull.push(subscription);
    const { pattern, waiting } = subscription;
    this.#options.log.warn("a subscription is slower than its events; from here on they wait in the database", { subscription: pattern, waiting });
  }

  #release(subscription: Subscription, bytes: number): void {
    subscription.waiting--;
    subscription.bytes -= bytes;
    if (!subscription.full || subscription.waiting > MAX_WAITING / 2 || subscription.bytes > MAX_BYTES / 2) return;
    subscription.full = false;
    this.#options.onRoom();
  }
}
