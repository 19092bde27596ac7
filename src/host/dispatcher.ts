import { Cancellation } from "../pipeline/cancellation.js";
import { InFlight, Run } from "../pipeline/in-flight.js";
import { RequestIds } from "../pipeline/request-ids.js";
import { runChecked } from "../pipeline/run-checked.js";
import { endAfter, isThenable } from "../pipeline/thenable.js";
import { defineContexts } from "./context.js";
import type { Meta } from "../contract/context.js";
import type { ActivityCount, BegunRun, ContextExtensionRegistration, Dispatcher, Scope, ScopedContext, Target } from "../contract/registration.js";
import type { ContextClasses, ContextServices, HostContext } from "./context.js";

const NO_META: Meta = Object.freeze({});

export class HostDispatcher implements Dispatcher {
  readonly inFlight = new InFlight();
  readonly #services: ContextServices;
  readonly #contexts: ContextClasses;
  readonly #requestIds = new RequestIds();
  #drain = new Cancellation();

  constructor(services: ContextServices, extensions: readonly ContextExtensionRegistration[]) {
    this.#services = services;
    this.#contexts = defineContexts(extensions);
  }

  async dispatch(target: Target, args: unknown, scope: Scope): Promise<unknown> {
    return this.run(target, args, scope);
  }

  run(target: Target, args: unknown, scope: Scope): unknown {
    const run = this.begin(target, args, scope);
    if (run.pending !== null) return endAfter(run.pending, () => run.end());
    run.end();
    return run.result;
  }

  begin(target: Target, args: unknown, scope: Scope): BegunRun {
    const Context = target.kind === "route" ? this.#contexts.Route : this.#contexts.Handler;
    const ctx = new Context(this.#services, scope, target.name);
    const run = new HandlerRun(target, ctx, this.inFlight);
    try {
      run.returned(runChecked(target.handler, target.validate, ctx, args));
    } catch (error) {
      run.end();
      throw error;
    }
    return run;
  }

  rootScope(overrides?: Partial<Scope>): Scope {
    const requestId = overrides?.requestId ?? this.#requestIds.next();
    const scope: Scope = { requestId, meta: NO_META, caller: null, level: 0, chain: null, deadline: null, cancellation: this.#drain };
    return overrides === undefined ? scope : { ...scope, ...overrides, requestId };
  }

  context(scope: Scope): ScopedContext {
    return new this.#contexts.Handler(this.#services, scope, "client");
  }

  /** Aborts everything under way. What starts afterwards, such as stop hooks, has a cancellation of its own. */
  cancelAll(reason: unknown): void {
    const drain = this.#drain;
    this.#drain = new Cancellation();
    drain.abort(reason);
  }
}

class HandlerRun extends Run implements BegunRun {
  result: unknown;
  pending: PromiseLike<unknown> | null = null;
  readonly #ctx: HostContext;
  readonly #inFlight: InFlight;
  readonly #activity: ActivityCount | undefined;

  constructor(target: Target, ctx: HostContext, inFlight: InFlight) {
    super(target.name, beginningOf(ctx.scope));
    this.#ctx = ctx;
    this.#inFlight = inFlight;
    this.#activity = target.activity;
    inFlight.add(this);
    this.#activity?.begin();
  }

  returned(result: unknown): void {
    this.result = result;
    if (isThenable(result)) this.pending = result;
  }

  end(): void {
    this.#inFlight.remove(this);
    this.#ctx.end();
    this.#activity?.end();
  }
}

/** A deadline was made when the call began; undefined where there is none. */
function beginningOf({ deadline }: Scope): number | undefined {
  return deadline === null ? undefined : deadline.at - deadline.budgetMs;
}
