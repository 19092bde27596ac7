import { definitionError } from "./plan.js";
import { checkName, show } from "./names.js";
import { isPlainObject } from "./settings.js";
import { paramsProblem } from "./validation.js";
import type { ActionOptions, EventOptions } from "./plan.js";
import { suggestion } from "../suggestion.js";

/** Throws, or returns the value as it goes into the descriptor. */
type Check = (subject: string, key: string, value: unknown) => unknown;
type Checks = Readonly<Record<string, Check>>;

const requires = (expected: string, holds: (value: unknown) => boolean): Check => (subject, key, value) => {
  if (!holds(value)) throw definitionError(subject, `option ${key} must be ${expected}, got ${show(value)}`);
  return value;
};

const atLeast = (low: number) => (value: unknown): boolean => typeof value === "number" && Number.isFinite(value) && value >= low;
const integerAtLeast = (low: number) => (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= low;

const positiveMs = requires("a positive number of ms", (value) => atLeast(0)(value) && value !== 0);
const ms = requires("a number of ms, 0 or more", atLeast(0));
const positiveInteger = requires("a positive integer", integerAtLeast(1));
const boolean = requires("true or false", (value) => typeof value === "boolean");

const params: Check = (subject, _key, value) => {
  const problem = paramsProblem(value);
  if (problem !== null) throw definitionError(subject, problem);
  return value;
};

const RETRY: Checks = {
  attempts: requires("an integer, 0 or more", integerAtLeast(0)),
  delayMs: ms,
  factor: requires("a number, 1 or more", atLeast(1)),
  jitter: requires("a number from 0 to 1", (value) => atLeast(0)(value) && (value as number) <= 1),
};

const ACTION: Checks = {
  params,
  timeoutMs: positiveMs,
  retry: (subject, key, value) => Object.freeze(checkOptions(subject, value, RETRY, `${key}.`)),
};

const BALANCED_ONLY: Checks = {
  group: (subject, _key, value) => checkName(subject, "group", value),
  maxAttempts: positiveInteger,
  retryDelayMs: ms,
  transaction: boolean,
};

const EVENT: Checks = { ...BALANCED_ONLY, params, concurrency: positiveInteger };

const SERVICE: Checks = {
  version: positiveInteger,
  settings: (_subject, _key, value) => value,
  mixins: requires("an array", Array.isArray),
};

export interface ServiceOptionsFound {
  readonly name?: unknown;
  readonly version?: number;
  readonly settings?: unknown;
  readonly mixins?: readonly unknown[];
}

/** `name` goes through unchecked in all three: its default depends on where the options stand. */
export function checkServiceOptions(subject: string, options: unknown): ServiceOptionsFound {
  return checkOptions(subject, options, { ...SERVICE, name: keep });
}

export function checkActionOptions(subject: string, options: unknown): { name?: unknown } & ActionOptions {
  return checkOptions(subject, options, { ...ACTION, name: keep });
}

export function checkEventOptions(subject: string, options: unknown): { name?: unknown; balanced?: boolean } & EventOptions {
  return checkOptions(subject, options, { ...EVENT, name: keep, balanced: boolean });
}

/** Options that mean nothing on a broadcast would be ignored in silence. */
export function refuseBalancedOptions(subject: string, options: EventOptions): void {
  const stray = Object.keys(options).find((key) => Object.hasOwn(BALANCED_ONLY, key));
  if (stray !== undefined) throw definitionError(subject, `option ${stray} needs balanced: true; a broadcast has no ${stray}`);
}

const keep: Check = (_subject, _key, value) => value;

function checkOptions(subject: string, options: unknown, checks: Checks, prefix = ""): Record<string, unknown> {
  if (!isPlainObject(options)) {
    throw definitionError(subject, `${prefix === "" ? "options" : `option ${prefix.slice(0, -1)}`} must be a plain object, got ${show(options)}`);
  }
  const checked: Record<string, unknown> = {};
  for (const key of Object.keys(options)) {
    const check = Object.hasOwn(checks, key) ? checks[key] : undefined;
    if (check === undefined) throw definitionError(subject, unknownKey(`option ${show(prefix + key)}`, key, Object.keys(checks)));
    // A schema that is undefined is most often a circular import, and would switch validation off.
    if (options[key] !== undefined || key === "params") checked[key] = check(subject, prefix + key, options[key]);
  }
  return checked;
}

export function unknownKey(what: string, key: string, known: readonly string[]): string {
  return `unknown ${what}; ${suggestion(key, known)}`;
}
