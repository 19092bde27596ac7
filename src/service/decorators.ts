import type { ActionDescriptor, Class, EventDescriptor, ParamsSchema, Settings } from "../contract/descriptor.js";
import type { AnyMethodDecorator, HandlerDecorator, HookDecorator, ParamsOutput, ServiceDecorator } from "./decorator-signatures.js";
import { marker, type DecoratorName } from "./metadata.js";

export interface ServiceOptions {
  /** Default: the class name without the suffix `Service`, first letter lower. Give it where a minifier renames classes. */
  readonly name?: string;
  /** Positive integer. Default 1. */
  readonly version?: number;
  /** Merged over the base class's and the mixins'. */
  readonly settings?: Settings;
  /**
   * Classes and descriptors whose actions, events, methods, settings and hooks this service takes on. A class gets an
   * instance of its own for each service that lists it, unless the service extends it.
   */
  readonly mixins?: readonly (Class | object)[];
}

export interface ActionOptions extends Partial<Omit<ActionDescriptor, "handler">> {
  /** Default: the method's name. */
  readonly name?: string;
}

export interface EventOptions extends Partial<Omit<EventDescriptor, "handler">> {
  /** Event name or pattern. Default: the method's name. */
  readonly name?: string;
}

type WithParams<O, P extends ParamsSchema> = Omit<O, "params"> & { readonly params: P };
type WithoutParams<O> = Omit<O, "params">;

/**
 * Marks a class as a service; a subclass without `@Service` of its own is the service that its base is. Mistakes are
 * reported by `describe` and at registration, as `ServiceDefinitionError`.
 */
export function Service(nameOrOptions?: string | ServiceOptions): ServiceDecorator;
export function Service(...args: unknown[]): unknown {
  return mark("Service", args);
}

/** Makes a method an action, `v{version}.{service}.{name}`. `@Action(false)` on an override removes what the base declared. */
export function Action(nameOrFalse?: string | false): HandlerDecorator<never>;
export function Action<P extends ParamsSchema>(options: WithParams<ActionOptions, P>): HandlerDecorator<ParamsOutput<P>>;
export function Action(options: WithoutParams<ActionOptions>): HandlerDecorator<never>;
export function Action(...args: unknown[]): unknown {
  return mark("Action", args);
}

/** Makes a method a handler of an event or pattern. `@Event(false)` on an override removes what the base declared. */
export function Event(nameOrFalse?: string | false): HandlerDecorator<never>;
export function Event<P extends ParamsSchema>(options: WithParams<EventOptions, P>): HandlerDecorator<ParamsOutput<P>>;
export function Event(options: WithoutParams<EventOptions>): HandlerDecorator<never>;
export function Event<P extends ParamsSchema>(name: string, options: WithParams<Omit<EventOptions, "name">, P>): HandlerDecorator<ParamsOutput<P>>;
export function Event(name: string, options: WithoutParams<Omit<EventOptions, "name">>): HandlerDecorator<never>;
export function Event(...args: unknown[]): unknown {
  return mark("Event", args);
}

/** Puts a method into the descriptor's `methods` and `self.methods`, where mixins find it. */
export function Method(name?: string): AnyMethodDecorator;
export function Method(...args: unknown[]): unknown {
  return mark("Method", args);
}

/** Runs the method when the service has started: bases first. */
export function Started(): HookDecorator;
export function Started(...args: unknown[]): unknown {
  return mark("Started", args);
}

/** Runs the method when the service stops: bases last. */
export function Stopped(): HookDecorator;
export function Stopped(...args: unknown[]): unknown {
  return mark("Stopped", args);
}

/** Trailing arguments left out and given as undefined are the same. */
function mark(name: DecoratorName, args: unknown[]): unknown {
  const given = args.findLastIndex((value) => value !== undefined) + 1;
  return marker(name, args.length === 3 ? args : args.slice(0, given));
}
