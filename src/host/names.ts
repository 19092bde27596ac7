import { MeshConfigurationError } from "../errors.js";

const MAX_LENGTH = 128;
const NAME = /^(?:__)?[A-Za-z][A-Za-z0-9_$-]*(?:\.[A-Za-z0-9_$-]+)*$/;
const PATTERN = /^(?:\*\*?|(?:__)?[A-Za-z][A-Za-z0-9_$-]*)(?:\.(?:\*\*?|[A-Za-z0-9_$-]+))*$/;

/** Throws `MeshConfigurationError` unless `name` can name an action, queue, event or the like. `what` is its kind, for the message. */
export function checkName(what: string, name: unknown): void {
  check(what, name, NAME, 'letters, digits, "_", "$", "-", parts joined by ".", a letter first');
}

/** The same for what may hold `*` and `**` segments. */
export function checkPattern(what: string, name: unknown): void {
  check(what, name, PATTERN, 'letters, digits, "_", "$", "-", and "*" or "**" as whole parts, joined by "."');
}

function check(what: string, name: unknown, rule: RegExp, allowed: string): void {
  if (typeof name === "string" && name.length <= MAX_LENGTH && rule.test(name)) return;
  const given = typeof name === "string" ? JSON.stringify(name.slice(0, 2 * MAX_LENGTH)) : `something of type ${typeof name}`;
  throw new MeshConfigurationError(`${given} is no name of ${what}: allowed are at most ${MAX_LENGTH} characters, ${allowed}`);
}
