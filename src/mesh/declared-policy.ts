import { NO_RETRY, resolveRetry } from "../pipeline/retry.js";
import { isObject } from "./json-object.js";
import type { RetryOptions } from "../contract/descriptor.js";
import type { ServiceInfo } from "../contract/mesh-client.js";

/** What an action declares for those who call it and say nothing themselves. */
export interface DeclaredPolicy {
  readonly timeoutMs?: number;
  readonly retry?: RetryOptions;
}

/** A service as its node's row shows it: under `calls`, by full name, the actions that declare something. */
export interface PublishedService extends ServiceInfo {
  readonly calls?: Readonly<Record<string, DeclaredPolicy>>;
}

export function publishPolicies(actions: readonly ({ readonly name: string } & DeclaredPolicy)[]): Pick<PublishedService, "calls"> {
  const declaring = actions.filter(({ timeoutMs, retry }) => timeoutMs !== undefined || retry !== undefined);
  if (declaring.length === 0) return {};
  return { calls: Object.freeze(Object.fromEntries(declaring.map(({ name, timeoutMs, retry }) => [name, policy(timeoutMs, retry)]))) };
}

/** Rows are written by others: what is not as it should be counts as not declared. */
export function readPolicies(services: readonly unknown[]): ReadonlyMap<string, DeclaredPolicy> {
  const entries = services.flatMap((service) => (isObject(service) && isObject(service["calls"]) ? Object.entries(service["calls"]) : []));
  return new Map(entries.map(([action, declared]) => [action, readPolicy(declared)]));
}

function readPolicy(declared: unknown): DeclaredPolicy {
  const { timeoutMs, retry } = isObject(declared) ? declared : {};
  return policy(typeof timeoutMs === "number" && timeoutMs > 0 ? timeoutMs : undefined, isRetry(retry) ? retry : undefined);
}

function isRetry(value: unknown): value is RetryOptions {
  if (!isObject(value)) return false;
  try {
    resolveRetry(value, NO_RETRY, "");
    return true;
  } catch {
    return false;
  }
}

function policy(timeoutMs: number | undefined, retry: RetryOptions | undefined): DeclaredPolicy {
  return { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(retry === undefined ? {} : { retry }) };
}
