import type { BroadcastRegistration, Dispatcher, LiveRegistration, SubscriptionRegistration } from "../contract/registration.js";
import type { EventBus, IncomingEvent } from "../contract/messaging.js";
import { InFlight, Run } from "../pipeline/in-flight.js";
import { endAfter, isThenable } from "../pipeline/thenable.js";
import type { WorkerEngine } from "../runtime/worker.js";

type Detach = () => Promise<void>;

export interface DeliveriesOptions {
  readonly bus: EventBus;
  readonly worker: WorkerEngine;
  readonly dispatcher: Dispatcher;
}

/**
 * Brings events to handlers. Broadcasts that come in before `open` wait: handlers run only when the host is up. After
 * `close` no more are handed over; those under way run on.
 */
export class EventDeliveries {
  readonly #options: DeliveriesOptions;
  readonly #unsubscriptions = new Set<() => void>();
  readonly #opened: Promise<boolean>;
  #settle: (open: boolean) => void = () => undefined;
  #state: "waiting" | "open" | "closed" = "waiting";

  constructor(options: DeliveriesOptions) {
    this.#options = options;
    this.#opened = new Promise((resolve) => (this.#settle = resolve));
  }

  open(): void {
    if (this.#state !== "waiting") return;
    this.#state = "open";
    this.#settle(true);
  }

  close(): void {
    this.#state = "closed";
    this.#settle(false);
    for (const unsubscribe of this.#unsubscriptions) unsubscribe();
    this.#unsubscriptions.clear();
  }

  /** In force when it resolves: all or none. The returned function takes them off, and waits for what is under way. */
  async attach(registrations: readonly LiveRegistration[]): Promise<Detach> {
    const detachments: Detach[] = [];
    const detach = async (): Promise<void> => void (await Promise.all(detachments.splice(0).map((undo) => undo())));
    try {
      for (const registration of registrations) if (registration.kind === "broadcast") detachments.push(this.#subscribe(registration));
      const balanced = registrations.filter((registration) => registration.kind === "balanced");
      if (balanced.length > 0) detachments.push(await this.#options.worker.attach(balanced));
    } catch (error) {
      await detach();
      throw error;
    }
    return detach;
  }

  #subscribe({ pattern, target, concurrency }: BroadcastRegistration): Detach {
    const { bus, dispatcher } = this.#options;
    const underWay = new InFlight();
    const ended = (result: PromiseLike<unknown>): Promise<unknown> => {
      const run = new Run(pattern);
      underWay.add(run);
      return endAfter(result, () => underWay.remove(run));
    };
    const handle = (event: IncomingEvent): unknown => {
      const result = runEvent(dispatcher, target, event);
      return isThenable(result) ? ended(result) : result;
    };
    const whenOpen = async (event: IncomingEvent): Promise<unknown> => ((await this.#opened) && this.#state === "open" ? handle(event) : undefined);

    const deliver = (event: IncomingEvent): unknown => (this.#state === "open" ? handle(event) : whenOpen(event));
    const unsubscribe = bus.subscribe(pattern, deliver, concurrency === undefined ? {} : { concurrency });
    this.#unsubscriptions.add(unsubscribe);
    return async () => {
      this.#unsubscriptions.delete(unsubscribe);
      unsubscribe();
      await underWay.idle();
    };
  }
}

function runEvent(dispatcher: Dispatcher, target: BroadcastRegistration["target"], event: IncomingEvent): unknown {
  const { id, name, emittedAtMs, nodeId, requestId, meta } = event;
  const scope = dispatcher.rootScope({
    requestId,
    meta,
    caller: { nodeId, action: null },
    event: { id, name, attempt: 1, balanced: false, emittedAtMs, nodeId },
  });
  return dispatcher.run(target, event.payload, scope);
}

/** A subscription as the broadcast delivery that it is. */
export function toBroadcast({ event, handler, concurrency }: SubscriptionRegistration): BroadcastRegistration {
  const target = { kind: "subscription" as const, name: event, handler: (ctx: Parameters<typeof handler>[0], payload: unknown) => handler(ctx, payload as never) };
  return { kind: "broadcast", pattern: event, target, ...(concurrency === undefined ? {} : { concurrency }) };
}
