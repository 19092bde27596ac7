import { MeshConfigurationError } from "../errors.js";
import { RESERVED_KEYS } from "./context.js";
import { checkName, checkPattern } from "./names.js";
import type { Context } from "../contract/context.js";
import type {
  ActionRegistration, ContextExtensionRegistration, CronOptions, CronRegistration, CronTick, HookFunction, HookRegistration,
  Plugin, Registration, RouteFunction, RouteRegistration, SubscriptionRegistration, WorkerOptions, WorkerRegistration,
} from "../contract/registration.js";

/** A host action: `ctx.action(name, args)` runs it in this process. */
export function action<A = unknown>(name: string, handler: (ctx: Context, args: A) => unknown): ActionRegistration {
  checkName("an action", name);
  checkHandler("action", name, handler);
  return { kind: "action", name, handler };
}

/** HTTP in Web standard types. Routes are asked in the order of registration; null passes on. `name` is for logs and errors. */
export function route(name: string, handler: RouteFunction): RouteRegistration {
  checkLabel("a route", name);
  checkHandler("route", name, handler);
  return { kind: "route", name, handler };
}

/**
 * A handler on this node of broadcast events, by name or pattern. `concurrency`: events of one emitter handled at the same
 * time; default 1, which keeps their order.
 */
export function subscription<P = unknown>(
  event: string,
  handler: (ctx: Context, payload: P) => unknown,
  options: { readonly concurrency?: number } = {},
): SubscriptionRegistration {
  checkPattern("an event", event);
  checkHandler("subscription", event, handler);
  return { kind: "subscription", event, handler, ...options };
}

/** The handler of a queue's jobs. Unless `transaction` is false, its `ctx.db` commits together with the job's completion. */
export function worker<P = unknown>(queue: string, handler: (ctx: Context, payload: P) => unknown, options: WorkerOptions = {}): WorkerRegistration {
  checkName("a queue", queue);
  checkHandler("worker", queue, handler);
  return { kind: "worker", queue, handler, options };
}

/** Runs on one node of the cluster at each tick of `schedule` (croner syntax, UTC unless `timezone` says otherwise). */
export function cron(
  name: string,
  schedule: string,
  handler: (ctx: Context, tick: CronTick) => unknown,
  options: CronOptions = {},
): CronRegistration {
  checkName("a cron", name);
  checkHandler("cron", name, handler);
  return { kind: "cron", name, schedule, handler, options };
}

/** Runs once everything takes messages. In order of registration; a failure fails the start. */
export function onStart(handler: HookFunction): HookRegistration {
  checkHandler("hook", "onStart", handler);
  return { kind: "start", handler };
}

/** Runs when nothing is under way any more, while Postgres is still there. In reverse order of registration. */
export function onStop(handler: HookFunction): HookRegistration {
  checkHandler("hook", "onStop", handler);
  return { kind: "stop", handler };
}

/** Makes `factory`'s value readable as `ctx[key]`, made at first use and once for each context. */
export function contextExtension(key: string, factory: (ctx: Context) => unknown): ContextExtensionRegistration {
  if (typeof key !== "string" || key === "" || RESERVED_KEYS.has(key)) {
    throw new MeshConfigurationError(`context extension "${String(key)}": this key is taken by the context itself, or empty; choose another`);
  }
  checkHandler("context extension", key, factory);
  return { kind: "context-extension", key, factory };
}

/** A named list of registrations. Those of the plugins in `dependsOn` come before its own, whatever the order of registration. */
export function plugin(
  options: { readonly name: string; readonly dependsOn?: readonly string[] },
  ...registrations: readonly Registration[]
): Plugin {
  checkLabel("a plugin", options?.name);
  return { kind: "plugin", name: options.name, dependsOn: options.dependsOn ?? [], registrations };
}

function checkLabel(what: string, name: unknown): void {
  if (typeof name !== "string" || name === "") throw new MeshConfigurationError(`the name of ${what} must be a string that is not empty`);
}

function checkHandler(what: string, name: string, handler: unknown): void {
  if (typeof handler !== "function") throw new MeshConfigurationError(`${what} "${name}": the handler must be a function, not ${typeof handler}`);
}
