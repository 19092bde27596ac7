import type { Settings } from "../contract/descriptor.js";
import { definitionError } from "./plan.js";

const MAX_DEPTH = 64;

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as object | null;
  // The second half recognises plain objects of another realm.
  return prototype === null || (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, "isPrototypeOf"));
}

/** A frozen copy: plain objects and arrays are copied in depth, everything else (dates, pools, functions) is kept as it is. */
export function copySettings(subject: string, settings: unknown): Settings {
  if (!isPlainObject(settings)) throw definitionError(subject, "settings must be a plain object");
  return copy(subject, settings, MAX_DEPTH) as Settings;
}

function copy(subject: string, value: unknown, depth: number): unknown {
  const array = Array.isArray(value);
  if (!array && !isPlainObject(value)) return value;
  if (depth === 0) throw definitionError(subject, `settings are circular or nested deeper than ${MAX_DEPTH} levels`);
  if (array) return Object.freeze(value.map((item) => copy(subject, item, depth - 1)));
  return Object.freeze(mapEntries(subject, value, (item) => copy(subject, item, depth - 1)));
}

function mapEntries(subject: string, from: Record<string, unknown>, map: (value: unknown) => unknown): Record<string, unknown> {
  const to: Record<string, unknown> = {};
  for (const key of Object.keys(from)) {
    if (key === "__proto__") throw definitionError(subject, "settings may not hold the key __proto__");
    to[key] = map(from[key]);
  }
  return to;
}

/** `over` wins. Plain objects are merged in depth, arrays are replaced. Both are results of `copySettings`, and so is what comes back. */
export function mergeSettings(under: Settings, over: Settings): Settings {
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const below = Object.hasOwn(under, key) ? under[key] : undefined;
    merged[key] = isPlainObject(below) && isPlainObject(value) ? mergeSettings(below, value) : value;
  }
  return Object.freeze(merged);
}
