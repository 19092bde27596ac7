import { MeshValidationError, isRetryable, toError, type ValidationIssue } from "../errors.js";
import type { ServiceSelf, Context } from "../contract/context.js";
import type { ActionDescriptor, ActionHandler, EventDescriptor, EventHandler, LifecycleHook, ParamsSchema, ServiceDescriptor, ServiceMethod } from "../contract/descriptor.js";
import { show } from "./names.js";
import { refuseBalancedOptions } from "./options.js";
import { definitionError, type ActionPart, type AnyFunction, type Code, type EventPart, type Plan } from "./plan.js";
import { mergeSettings } from "./settings.js";
import { compileParams } from "./validation.js";

/** One class or definition of a composition, with the way to its instance. */
export interface Layer {
  readonly plan: Plan;
  readonly owner: () => object;
}

type Bound<P> = P & { readonly owner: () => object };

/** The frozen descriptor of `layers`, lowest precedence first; the last one is the service. */
export function compose(layers: readonly Layer[], service: NonNullable<Plan["service"]>): ServiceDescriptor {
  return Object.freeze({
    name: service.name,
    version: service.version,
    settings: layers.reduce((under, { plan }) => mergeSettings(under, plan.settings), Object.freeze({}) as ServiceDescriptor["settings"]),
    methods: table(mergeMethods(layers), ({ code, owner }) => bind(code, owner) as ServiceMethod),
    actions: table(mergeActions(layers), describeAction),
    events: table(mergeEvents(layers), describeEvent),
    started: Object.freeze(layers.flatMap(({ plan, owner }) => plan.started.map((code) => bind(code, owner) as LifecycleHook))),
    stopped: Object.freeze(layers.toReversed().flatMap(({ plan, owner }) => plan.stopped.map((code) => bind(code, owner) as LifecycleHook))),
  });
}

/** Keys may be any legal name, `__proto__` for an event too: defined, never assigned. */
function table<P, D>(entries: ReadonlyMap<string, P>, describe: (part: P) => D): Readonly<Record<string, D>> {
  const result = {};
  for (const [name, part] of entries) Object.defineProperty(result, name, { value: describe(part), enumerable: true });
  return Object.freeze(result);
}

function bind(code: Code, owner: () => object): AnyFunction {
  if ("run" in code) return code.run;
  const { member } = code;
  return (...args: never[]) => (owner() as Record<string, AnyFunction>)[member]!(...args);
}

function mergeMethods(layers: readonly Layer[]): Map<string, { code: Code; owner: () => object }> {
  const methods = new Map<string, { code: Code; owner: () => object }>();
  for (const { plan, owner } of layers) for (const [name, code] of plan.methods) methods.set(name, { code, owner });
  return methods;
}

function mergeActions(layers: readonly Layer[]): Map<string, Bound<ActionPart>> {
  const actions = new Map<string, Bound<ActionPart>>();
  for (const { plan, owner } of layers) {
    for (const name of plan.removedActions) actions.delete(name);
    for (const part of plan.actions.values()) actions.set(part.name, overlay(actions.get(part.name), { ...part, owner }));
  }
  return actions;
}

/** Option by option, the upper part wins; its handler too, where it has one. */
function overlay(under: Bound<ActionPart> | undefined, over: Bound<ActionPart>): Bound<ActionPart> {
  if (under === undefined) return over;
  const { retry } = { ...under.options, ...over.options };
  const options = { ...under.options, ...over.options, ...(retry === undefined ? {} : { retry: Object.freeze({ ...under.options.retry, ...over.options.retry }) }) };
  return over.code === undefined ? { ...under, options } : { ...over, options };
}

function describeAction({ subject, name, code, owner, options }: Bound<ActionPart>): ActionDescriptor {
  if (code === undefined) throw definitionError(subject, "has no handler, and no mixin declares one");
  return Object.freeze({ name, handler: bind(code, owner) as ActionHandler, ...options });
}

function mergeEvents(layers: readonly Layer[]): Map<string, Bound<EventPart>[]> {
  const events = new Map<string, Bound<EventPart>[]>();
  for (const { plan, owner } of layers) {
    for (const name of plan.removedEvents) events.delete(name);
    for (const part of plan.events) events.set(part.name, [...(events.get(part.name) ?? []), { ...part, owner }]);
  }
  return events;
}

function describeEvent(parts: readonly Bound<EventPart>[]): EventDescriptor {
  const { name, subject } = parts.at(-1)!;
  const handlers = parts.filter((part) => part.code !== undefined);
  if (handlers.length === 0) throw definitionError(subject, "has no handler, and no mixin declares one");
  const balanced = agreeOnBalanced(name, parts);
  const { params: lastParams, ...options } = Object.assign({}, ...parts.map((part) => part.options)) as EventPart["options"];
  if (!balanced) refuseBalancedOptions(subject, options);
  const [first] = handlers;
  const shared = handlers.length === 1 ? lastParams : first!.options.params;
  if (handlers.every((part) => part === first || part.options.params === shared)) {
    return freezeEvent({ name, balanced, handler: runAll(name, handlers.map(bindEvent)), ...(shared === undefined ? {} : { params: shared }), ...options });
  }
  return freezeEvent({ name, balanced, handler: runAll(name, handlers.map((part) => validated(bindEvent(part), part.options.params, name))), ...options });
}

const freezeEvent = (event: EventDescriptor): EventDescriptor => Object.freeze(event);

const bindEvent = ({ code, owner }: Bound<EventPart>): EventHandler => bind(code!, owner) as EventHandler;

/** One event of one service is either a job or a broadcast. */
function agreeOnBalanced(name: string, parts: readonly EventPart[]): boolean {
  const decided = parts.filter((part) => part.balanced !== undefined);
  const other = decided.find((part) => part.balanced !== decided[0]?.balanced);
  if (other === undefined) return decided[0]?.balanced ?? false;
  const [yes, no] = other.balanced === true ? [other, decided[0]!] : [decided[0]!, other];
  throw definitionError(yes.subject, `handles the event ${show(name)} balanced, ${no.subject} as a broadcast: make them agree`);
}

/** Where handlers of one event ask for different input, each gets its own. */
function validated(handler: EventHandler, params: ParamsSchema | undefined, name: string): EventHandler {
  if (params === undefined) return handler;
  const validate = compileParams(params, name);
  return async (ctx, payload, self) => handler(ctx, await validate(payload), self);
}

/** Runs every handler, one after another, whatever the others throw: inside one transaction they share a connection. */
function runAll(name: string, handlers: readonly EventHandler[]): EventHandler {
  if (handlers.length === 1) return handlers[0]!;
  return async (ctx: Context, payload: unknown, self: ServiceSelf): Promise<void> => {
    const errors: unknown[] = [];
    for (const handler of handlers) {
      try {
        await handler(ctx, payload, self);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw joinErrors(name, handlers.length, errors);
  };
}

function joinErrors(name: string, count: number, errors: readonly unknown[]): unknown {
  if (errors.length === 1) return errors[0];
  const message = `${errors.length} of ${count} handlers of event ${name} failed: ${errors.map((error) => toError(error).message).join("; ")}`;
  if (errors.every((error) => error instanceof MeshValidationError)) {
    return new MeshValidationError(message, errors.flatMap((error): readonly ValidationIssue[] => error.data));
  }
  return Object.assign(new AggregateError(errors, message), { retryable: errors.some(isRetryable) });
}
