import { MeshConfigurationError } from "../errors.js";
import { resolveRetry, type RetryPolicy } from "../pipeline/retry.js";
import type { CallOptions, Strategy } from "../contract/mesh-client.js";
import type { LocalAction } from "./directory.js";
import { isStrategy, STRATEGY_NAMES } from "./balancing.js";

export interface CallDefaults {
  readonly strategy: Strategy;
  readonly timeoutMs: number;
  readonly retry: RetryPolicy;
}

/** Call options, checked and filled. */
export interface CallPolicy {
  readonly timeoutMs: number;
  readonly attemptTimeoutMs: number | undefined;
  readonly retry: RetryPolicy;
  readonly strategy: Strategy;
}

/** `options` over what the action declares, where it is known here, over the defaults of the mesh. */
export function resolvePolicy(options: CallOptions, local: LocalAction | undefined, defaults: CallDefaults): CallPolicy {
  const { timeoutMs, attemptTimeoutMs, strategy } = options;
  if (timeoutMs !== undefined) checkMs("timeoutMs", timeoutMs);
  if (attemptTimeoutMs !== undefined) checkMs("attemptTimeoutMs", attemptTimeoutMs);
  if (strategy !== undefined && !isStrategy(strategy)) fail("strategy", `one of ${STRATEGY_NAMES.join(", ")}`, strategy);
  if (options.nodeId !== undefined && typeof options.nodeId !== "string") fail("nodeId", "the id of a node", options.nodeId);
  if (options.meta !== undefined && !isObject(options.meta)) fail("meta", "an object", options.meta);
  if (options.fallback !== undefined && typeof options.fallback !== "function") fail("fallback", "a function", options.fallback);
  const declared = local?.retry === undefined ? defaults.retry : resolveRetry(local.retry, defaults.retry, `action ${local.name}:`);
  return {
    timeoutMs: timeoutMs ?? local?.timeoutMs ?? defaults.timeoutMs,
    attemptTimeoutMs,
    retry: resolveRetry(options.retry, declared, "call option"),
    strategy: strategy ?? defaults.strategy,
  };
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkMs(option: string, value: number): void {
  if (!Number.isFinite(value) || value < 0) fail(option, "a number of ms, 0 or more", value);
}

function fail(option: string, expected: string, value: unknown): never {
  throw new MeshConfigurationError(`call option ${option} must be ${expected}, got ${String(value)}`);
}
