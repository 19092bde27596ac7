import { definitionError } from "./plan.js";

const MAX_LENGTH = 128;

const PLAIN = /^[A-Za-z][A-Za-z0-9_$-]*(\.[A-Za-z0-9_$-]+)*$/;
const EVENT = /^((__)?[A-Za-z][A-Za-z0-9_$-]*|\*\*?)(\.([A-Za-z0-9_$-]+|\*\*?))*$/;
/** Methods never leave the process: any member name will do. */
const METHOD = /^[A-Za-z_$][A-Za-z0-9_$-]*(\.[A-Za-z0-9_$-]+)*$/;

const RULES = {
  service: { pattern: PLAIN, allowed: "letters, digits, _ $ - and dots between segments, a letter first" },
  action: { pattern: PLAIN, allowed: "letters, digits, _ $ - and dots between segments, a letter first" },
  group: { pattern: PLAIN, allowed: "letters, digits, _ $ - and dots between segments, a letter first" },
  event: { pattern: EVENT, allowed: "letters, digits, _ $ - and dots between segments, a letter or __ first; * and ** stand for whole segments" },
  method: { pattern: METHOD, allowed: "letters, digits, _ $ - and dots between segments, no digit first" },
} as const;

/** Returns `name`, or throws what is wrong with it. */
export function checkName(subject: string, kind: keyof typeof RULES, name: unknown): string {
  if (typeof name !== "string") throw definitionError(subject, `the ${kind} name must be a string, got ${show(name)}`);
  if (name === "") throw definitionError(subject, `the ${kind} name is empty`);
  if (name.length > MAX_LENGTH) throw definitionError(subject, `the ${kind} name has ${name.length} characters, at most ${MAX_LENGTH} are allowed`);
  const { pattern, allowed } = RULES[kind];
  if (!pattern.test(name) || (kind === "method" && name === "__proto__")) {
    throw definitionError(subject, `illegal ${kind} name ${show(name)}; allowed are ${allowed}`);
  }
  return name;
}

/** A value as a message shows it: short, and never by running its code. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return "an object";
  return typeof value === "bigint" ? `${value}n` : String(value);
}
