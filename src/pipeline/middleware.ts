import { AsyncLocalStorage } from "node:async_hooks";
import { MeshConfigurationError } from "../errors.js";
import type { CallMiddleware, CallNext, CallOptions } from "../contract/mesh-client.js";

/** A call with the context that it was made from. */
export type OriginCall<O> = (origin: O, name: string, args: unknown, options: CallOptions) => Promise<unknown>;

/**
 * Composes the middleware once, so that what a middleware keeps in its closure (a cache, a breaker) lasts, around calls
 * that each have an origin of their own.
 *
 * `next(name, args, options)` does not name the origin, so it is found by the options object that was handed in, or,
 * where the middleware made a new one, by the asynchronous context of the call. `orphan` gives the origin of a `next`
 * that runs outside any call (a timer that the middleware started when it was made).
 */
export function composeMiddleware<O extends object>(middleware: readonly CallMiddleware[], run: OriginCall<O>, orphan: () => O): OriginCall<O> {
  if (middleware.length === 0) return run;
  const byOptions = new WeakMap<CallOptions, O>();
  const byContext = new AsyncLocalStorage<O>();
  const innermost: CallNext = async (name, args, options: CallOptions | undefined) => {
    const origin = (options && byOptions.get(options)) ?? byContext.getStore() ?? orphan();
    return run(origin, name, args, options ?? {});
  };
  const outermost = middleware.reduceRight(wrap, innermost);
  return async (origin, name, args, options) => {
    // A copy: callers may pass one options object to many calls, and a middleware may write to it.
    const own = { ...options };
    byOptions.set(own, origin);
    return byContext.run(origin, () => outermost(name, args, own));
  };
}

function wrap(next: CallNext, middleware: CallMiddleware, index: number): CallNext {
  const wrapped: unknown = typeof middleware === "function" ? middleware(next) : undefined;
  if (typeof wrapped === "function") return wrapped as CallNext;
  throw new MeshConfigurationError(`middleware[${index}] must be a function (next) => (name, args, options) => Promise`);
}
