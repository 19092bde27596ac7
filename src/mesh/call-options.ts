import { MeshConfigurationError } from "../errors.js";
import { resolveRetry, type RetryPolicy } from "../pipeline/retry.js";
import type { CallOptions, Strategy } from "../contract/mesh-client.js";
import type { DeclaredPolicy } from "./declared-policy.js";
import { isStrategy, STRATEGY_NAMES } from "./balancing.js";
import { isObject } from "./json-object.js";
import { refuseUnknownKeys } from "./option-names.js";

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

const CALL_OPTIONS: ReadonlySet<string> = new Set<keyof CallOptions>([
  "timeoutMs", "attemptTimeoutMs", "retry", "strategy", "nodeId", "fallback", "signal", "meta",
]);
const RETRY_OPTIONS: ReadonlySet<string> = new Set<keyof RetryPolicy>(["attempts", "delayMs", "factor", "jitter"]);

/** `options` over what the action declares over the defaults of the mesh. */
export function resolvePolicy(options: CallOptions, action: DeclaredPolicy | undefined, defaults: CallDefaults): CallPolicy {
  checkKeys("call option", options, CALL_OPTIONS);
  const { timeoutMs, attemptTimeoutMs, strategy } = options;
  if (timeoutMs !== undefined) checkMs("timeoutMs", timeoutMs);
  if (attemptTimeoutMs !== undefined) checkMs("attemptTimeoutMs", attemptTimeoutMs);
  if (strategy !== undefined && !isStrategy(strategy)) fail("strategy", `one of ${STRATEGY_NAMES.join(", ")}`, strategy);
  if (options.nodeId !== undefined && typeof options.nodeId !== "string") fail("nodeId", "the id of a node", options.nodeId);
  if (options.meta !== undefined && !isObject(options.meta)) fail("meta", "an object", options.meta);
  if (options.fallback !== undefined && typeof options.fallback !== "function") fail("fallback", "a function", options.fallback);
  if (options.signal !== undefined && !isSignal(options.signal)) fail("signal", "an AbortSignal", options.signal);
  if (options.retry !== undefined) checkRetry(options.retry);
  const declared = action?.retry === undefined ? defaults.retry : resolveRetry(action.retry, defaults.retry, "action option");
  return {
    timeoutMs: timeoutMs ?? action?.timeoutMs ?? defaults.timeoutMs,
    attemptTimeoutMs,
    retry: resolveRetry(options.retry, declared, "call option"),
    strategy: strategy ?? defaults.strategy,
  };
}

/** A misspelt option would be ignored in silence. Without an array of keys: this is in the way of every call. */
function checkKeys(what: string, options: object, known: ReadonlySet<string>): void {
  for (const key in options) if (!known.has(key)) refuseUnknownKeys(what, options, [...known]);
}

function checkRetry(retry: unknown): void {
  if (!isObject(retry)) fail("retry", "an object such as { attempts: 2 }", retry);
  checkKeys("call option retry", retry, RETRY_OPTIONS);
}

/** By what is used of it: signals come from other realms and polyfills too. */
function isSignal(value: unknown): boolean {
  return typeof (value as Partial<AbortSignal> | null)?.addEventListener === "function";
}

function checkMs(option: string, value: number): void {
  if (!Number.isFinite(value) || value < 0) fail(option, "a number of ms, 0 or more", value);
}

function fail(option: string, expected: string, value: unknown): never {
  throw new MeshConfigurationError(`call option ${option} must be ${expected}, got ${String(value)}`);
}
