import { fullActionName } from "../contract/descriptor.js";
import { Activity } from "../pipeline/activity.js";
import { compileParams } from "../service/validation.js";
import { publishPolicies } from "./declared-policy.js";
import type { PublishedService } from "./declared-policy.js";
import type { LocalAction } from "./directory.js";
import type { ActionDescriptor, EventDescriptor, LifecycleHook, ParamsSchema, ServiceDescriptor, Settings } from "../contract/descriptor.js";
import type { Context, ServiceSelf } from "../contract/context.js";
import type { MeshClient } from "../contract/mesh-client.js";
import type { Dispatcher, LiveRegistration, Target, TargetKind, WorkerOptions } from "../contract/registration.js";

type Handler = (ctx: Context, args: unknown, self: ServiceSelf) => unknown;

/** A service as this node runs it: its handlers as targets, bound to `self`, and counted while they run. */
export class RegisteredService {
  /** `v1.users`. */
  readonly id: string;
  readonly info: PublishedService;
  readonly actions: readonly LocalAction[];
  readonly events: readonly LiveRegistration[];
  readonly #descriptor: ServiceDescriptor;
  readonly #activity = new Activity();

  constructor(descriptor: ServiceDescriptor) {
    this.#descriptor = descriptor;
    this.id = `v${descriptor.version}.${descriptor.name}`;
    this.actions = Object.values(descriptor.actions).map((action) => this.#localAction(action));
    this.events = Object.values(descriptor.events).map((event) => this.#delivery(event));
    this.info = Object.freeze({
      name: descriptor.name,
      version: descriptor.version,
      actions: Object.freeze(this.actions.map((action) => action.name)),
      events: Object.freeze(Object.keys(descriptor.events)),
      ...publishPolicies(this.actions),
    });
  }

  /** Runs the `started` hooks, base to derived. */
  async start(dispatcher: Dispatcher): Promise<void> {
    for (const hook of this.#descriptor.started) await this.#runHook(dispatcher, "started", hook);
  }

  /** Runs all `stopped` hooks, whichever of them throw; rejects with what the first one threw. */
  async stop(dispatcher: Dispatcher): Promise<void> {
    const errors: unknown[] = [];
    for (const hook of this.#descriptor.stopped) await this.#runHook(dispatcher, "stopped", hook).catch((error: unknown) => errors.push(error));
    if (errors.length > 0) throw errors[0];
  }

  /** Resolves when no call is under way. */
  idle(): Promise<void> {
    return this.#activity.idle();
  }

  #runHook(dispatcher: Dispatcher, phase: "started" | "stopped", hook: LifecycleHook): Promise<unknown> {
    const target = this.#target("lifecycle", `${this.id} ${phase}`, (ctx, _args, self) => hook(ctx, self));
    return dispatcher.dispatch(target, undefined, dispatcher.rootScope());
  }

  #localAction(action: ActionDescriptor): LocalAction {
    const name = fullActionName(this.#descriptor, action.name);
    // Counted from the moment when a call has found its action: validation may take its time, and the service waits for it.
    const target: Target = { ...this.#target("action", name, action.handler, action.params), activity: this.#activity };
    const { timeoutMs, retry } = action;
    return { name, target, ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(retry === undefined ? {} : { retry }) };
  }

  #delivery(event: EventDescriptor): LiveRegistration {
    const name = `${this.id}:${event.name}`;
    const target = this.#target(event.balanced ? "job" : "subscription", name, event.handler, event.params);
    if (event.balanced) {
      return { kind: "balanced", group: event.group ?? this.#descriptor.name, pattern: event.name, target, options: workerOptions(event) };
    }
    const { concurrency } = event;
    return { kind: "broadcast", pattern: event.name, target, ...(concurrency === undefined ? {} : { concurrency }) };
  }

  #target(kind: TargetKind, name: string, handler: Handler, params?: ParamsSchema): Target {
    const descriptor = this.#descriptor;
    return {
      kind,
      name,
      handler: (ctx, args) => handler(ctx, args, new HandlerSelf(descriptor, ctx)),
      ...(params === undefined ? {} : { validate: compileParams(params, name) }),
    };
  }
}

/** `self` of one run. `call` and `emit` are functions of their own, so that they may be taken off it. */
class HandlerSelf implements ServiceSelf {
  readonly name: string;
  readonly version: number;
  readonly settings: Settings;
  readonly methods: ServiceSelf["methods"];
  readonly #ctx: Context;

  constructor(descriptor: ServiceDescriptor, ctx: Context) {
    this.name = descriptor.name;
    this.version = descriptor.version;
    this.settings = descriptor.settings;
    this.methods = descriptor.methods;
    this.#ctx = ctx;
  }

  get nodeId(): string {
    return this.#ctx.mesh.nodeId();
  }

  get call(): MeshClient["call"] {
    return (name, args, options) => this.#ctx.mesh.call(name, args, options);
  }

  get emit(): MeshClient["emit"] {
    return (event, payload, options) => this.#ctx.mesh.emit(event, payload, options);
  }
}

function workerOptions({ concurrency, maxAttempts, retryDelayMs, transaction }: EventDescriptor): WorkerOptions {
  return {
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
    ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
    ...(transaction === undefined ? {} : { transaction }),
  };
}
