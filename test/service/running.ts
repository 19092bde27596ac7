import { ServiceDefinitionError, type Context, type ServiceDescriptor, type ServiceSelf } from "@chimpbase/mesh";
import type { LifecycleHook } from "#mesh/contract/descriptor.js";

const ctx = {} as Context;

/** `self` as a host would give it, as far as a descriptor knows it. */
export function selfOf({ name, version, settings, methods }: ServiceDescriptor): ServiceSelf {
  return { name, version, settings, methods } as ServiceSelf;
}

export async function run(descriptor: ServiceDescriptor, action: string, args?: unknown): Promise<unknown> {
  return descriptor.actions[action]!.handler(ctx, args, selfOf(descriptor));
}

export async function runEvent(descriptor: ServiceDescriptor, event: string, payload?: unknown): Promise<unknown> {
  return descriptor.events[event]!.handler(ctx, payload, selfOf(descriptor));
}

export async function runHooks(hooks: readonly LifecycleHook[]): Promise<void> {
  for (const hook of hooks) await hook(ctx, {} as ServiceSelf);
}

/** Matches a `ServiceDefinitionError` whose message holds all of `parts`. */
export function defines(...parts: readonly string[]): (error: unknown) => boolean {
  return (error) => {
    if (!(error instanceof ServiceDefinitionError)) throw error;
    const absent = parts.filter((part) => !error.message.includes(part));
    if (absent.length > 0) throw new Error(`expected ${JSON.stringify(absent)} in: ${error.message}`);
    return true;
  };
}
