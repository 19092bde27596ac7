import type { Context, ServiceSelf } from "../contract/context.js";
import type { ActionHandler, Class, LifecycleHook, ServiceMethod } from "../contract/descriptor.js";
import type { StandardSchemaV1 } from "../contract/standard-schema.js";

/** What a handler gets after `params` has let it through. */
export type ParamsOutput<P> = P extends StandardSchemaV1<infer _Input, infer Output> ? Output : P extends Class<infer Instance> ? Instance : unknown;

/** Legacy decorators get the class itself for a static member. */
type NotStatic<T> = T extends abstract new (...args: never) => unknown ? never : T;

/** Two call signatures: the first for standard (TC39) decorators, the second for `experimentalDecorators`. */
interface Decorates<H extends (...args: never) => unknown> {
  <This, F extends H>(
    value: F,
    // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the context's own constraint on methods
    context: ClassMethodDecoratorContext<This, F & ((this: This, ...args: any) => any)> & { readonly name: string; readonly static: false; readonly private: false },
  ): void;
  <T extends object, F extends H>(target: NotStatic<T>, key: string, descriptor: TypedPropertyDescriptor<F>): void;
}

/** Stands on a method `(ctx, args, self)` whose arguments take `Args`. */
export type HandlerDecorator<Args> = Decorates<(ctx: Context, args: Args, self: ServiceSelf<never, never>) => ReturnType<ActionHandler>>;
/** Stands on a method `(ctx, self)`. */
export type HookDecorator = Decorates<(ctx: Context, self: ServiceSelf<never, never>) => ReturnType<LifecycleHook>>;
/** Stands on any method. */
export type AnyMethodDecorator = Decorates<ServiceMethod>;

/** Stands on a class. */
export interface ServiceDecorator {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the context's own constraint on classes
  <T extends abstract new (...args: any) => any>(value: T, context: ClassDecoratorContext<T>): void;
  (target: Class): void;
}
