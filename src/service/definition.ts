import { ServiceDefinitionError } from "../errors.js";
import type { Context, ServiceSelf } from "../contract/context.js";
import type { ActionDescriptor, Class, EventDescriptor, ServiceDefinition } from "../contract/descriptor.js";
import { describe } from "./describe.js";
import { isPlainObject } from "./settings.js";

// The signatures that a user's functions are inferred from: `any` lets them annotate their own arguments.
/* eslint-disable @typescript-eslint/no-explicit-any */
type Methods = Record<string, (...args: any[]) => any>;
type DefinitionHandler<S, M> = (ctx: Context, args: any, self: ServiceSelf<S, M>) => unknown;
/* eslint-enable @typescript-eslint/no-explicit-any */
type DefinitionHook<S, M> = (ctx: Context, self: ServiceSelf<S, M>) => unknown;

type Options<D> = Partial<Omit<D, "name" | "handler">>;

/** A handler; or one with options; options alone are laid over a mixin's declaration; `false` removes that one. */
type Entry<D, S, M> = DefinitionHandler<S, M> | (Options<D> & { readonly handler?: DefinitionHandler<S, M> }) | false;
type Actions<S, M> = Record<string, Entry<ActionDescriptor, S, M>>;
type Events<S, M> = Record<string, Entry<EventDescriptor, S, M>>;

interface Definition<S extends object, M extends Methods, A extends Actions<S, M>> {
  readonly name: string;
  /** Positive integer. Default 1. */
  readonly version?: number;
  readonly settings?: S;
  /** Classes and descriptors; later ones over earlier ones, this definition over all. */
  readonly mixins?: readonly (Class | object)[];
  /** Read by handlers as `self.methods`; `this` in a method is that same object. */
  readonly methods?: M;
  readonly actions?: A & Actions<S, M>;
  readonly events?: Events<S, M>;
  readonly started?: DefinitionHook<S, M> | readonly DefinitionHook<S, M>[];
  readonly stopped?: DefinitionHook<S, M> | readonly DefinitionHook<S, M>[];
}

/** The actions as methods, which is how typed clients read them. */
type ActionMethods<A> = { [K in keyof A]: A[K] extends { readonly handler: infer F } ? F : A[K] };

/**
 * A service without a class. Returns its frozen descriptor, which carries the types of the actions:
 * `ctx.mesh.service(users).create({ email })`.
 *
 * Throws `ServiceDefinitionError` naming the service and the entry.
 */
export function service<
  S extends object = Record<never, never>,
  M extends Methods = Record<never, never>,
  A extends Actions<S, M> = Record<never, never>,
>(definition: Definition<S, M, A>): ServiceDefinition<ActionMethods<A>> {
  if (!isPlainObject(definition)) {
    throw new ServiceDefinitionError("service({...}) takes a plain object; classes and instances are registered as they are");
  }
  return describe(definition);
}
