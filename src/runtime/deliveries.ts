import type { Logger } from "../logger.js";
import type { IncomingEvent, SubscribeOptions } from "../contract/messaging.js";
import { MeshConfigurationError } from "../errors.js";
import { InFlight, type Run } from "../pipeline/in-flight.js";
import { EVERYTHING, type Interest } from "./event-log.js";
import { patternToRegex } from "./event-pattern.js";
import { copies } from "./event-record.js";
import { isStorableName, LONGEST_NAME } from "./storable-name.js";
import { Subscription, type BroadcastHandler, type SubscriptionOwner } from "./subscription.js";

export interface DeliveriesOptions {
  readonly log: Logger;
  /** A subscription that was full can take events again. */
  readonly onRoom: () => void;
}

const MAX_CACHED_NAMES = 5_000;
/** Patterns beyond these are more than Postgres should compare with each row. */
const MOST_NAMES = 500;
const LONGEST_REGEX = 8_000;
const NONE: readonly Subscription[] = [];

/** All subscriptions of a bus: finds those to which an event goes, and gives each its own copy. */
export class Deliveries implements SubscriptionOwner {
  readonly #log: Logger;
  readonly #subscriptions = new Set<Subscription>();
  /** By event name, as found before. */
  readonly #matching = new Map<string, readonly Subscription[]>();
  readonly #handling = new InFlight();
  readonly #wanted = new Set<string>();
  #interest: Interest = { names: [], regex: null };
  #newlyFull: Subscription[] = [];
  readonly onRoom: () => void;

  constructor({ log, onRoom }: DeliveriesOptions) {
    this.#log = log;
    this.onRoom = onRoom;
  }

  /** What any subscription wants, and perhaps what ended ones have wanted. The same object until a new pattern comes. */
  get interest(): Interest {
    return this.#interest;
  }

  /** Somebody waits for events of one of these names. */
  wants(names: readonly string[]): boolean {
    return names.some((name) => this.#subscriptionsTo(name).length > 0);
  }

  subscribe(pattern: string, handler: BroadcastHandler, { concurrency = 1 }: SubscribeOptions = {}): () => void {
    check(pattern, concurrency);
    const subscription = new Subscription(pattern, handler, concurrency, this);
    this.#subscriptions.add(subscription);
    this.#matching.clear();
    if (!this.#wanted.has(pattern)) this.#want();
    return () => {
      this.#subscriptions.delete(subscription);
      this.#matching.clear();
      subscription.end();
    };
  }

  /** Queues the event for every subscription that matches and is not behind. No handler runs before this returns. */
  add(event: IncomingEvent, bytes: number): void {
    const subscriptions = this.#subscriptionsTo(event.name);
    if (subscriptions.length === 0) return;
    const each = copies(event, subscriptions.length);
    for (let index = 0; index < each.length; index++) {
      const subscription = subscriptions[index]!;
      if (!subscription.behind) subscription.add(each[index]!, bytes);
    }
  }

  /** Subscriptions that have become full since the last call. From now on they are behind. */
  takeFull(): readonly Subscription[] {
    if (this.#newlyFull.length === 0) return NONE;
    const taken = this.#newlyFull;
    this.#newlyFull = [];
    for (const subscription of taken) subscription.behind = true;
    return taken;
  }

  /** Names of the events whose handlers run now. */
  inFlight(): readonly string[] {
    return this.#handling.oldest(Infinity).map(({ name }) => name);
  }

  /** Ends all subscriptions. Handlers under way run on. */
  close(): void {
    for (const subscription of this.#subscriptions) subscription.end();
  }

  onBegin(run: Run): void {
    this.#handling.add(run);
  }

  onEnd(run: Run): void {
    this.#handling.remove(run);
  }

  onFailure({ pattern }: Subscription, event: IncomingEvent, error: unknown): void {
    this.#log.error("event handler failed", { event: event.name, eventId: event.id, subscription: pattern, err: error });
  }

  onFull(subscription: Subscription): void {
    if (subscription.behind) return;
    this.#newlyFull.push(subscription);
    this.#log.warn("a subscription is slower than its events; from here on they wait in the database", { subscription: subscription.pattern });
  }

  #want(): void {
    this.#wanted.clear();
    for (const { pattern } of this.#subscriptions) this.#wanted.add(pattern);
    this.#interest = interestIn([...this.#wanted]);
  }

  #subscriptionsTo(name: string): readonly Subscription[] {
    let found = this.#matching.get(name);
    if (found === undefined) {
      found = [...this.#subscriptions].filter((subscription) => subscription.matches(name));
      if (this.#matching.size >= MAX_CACHED_NAMES) this.#matching.clear();
      this.#matching.set(name, found);
    }
    return found;
  }
}

function interestIn(patterns: readonly string[]): Interest {
  const regexes = patterns.map(patternToRegex);
  const regex = regexes.filter((each) => each !== null).join("|");
  const names = patterns.filter((_, index) => regexes[index] === null);
  if (regex.length > LONGEST_REGEX || names.length > MOST_NAMES) return EVERYTHING;
  return { names, regex: regex === "" ? null : regex };
}

function check(pattern: unknown, concurrency: number): void {
  if (!isStorableName(pattern)) {
    throw new MeshConfigurationError(`a subscription's pattern must be a string of 1 to ${LONGEST_NAME} characters without control characters, not ${JSON.stringify(pattern)}`);
  }
  if (Number.isInteger(concurrency) && concurrency > 0) return;
  throw new MeshConfigurationError(`concurrency of the subscription to "${pattern}" must be a whole number from 1, not ${concurrency}`);
}
