/** Token of the `Upgrade` header. */
export const WIRE_PROTOCOL = "chimpbase-mesh.1";

/** Names the node that an upgrade is meant for. */
export const TARGET_HEADER = "x-chimpbase-mesh-target";

/** Longest body of a request on a wire, in bytes. Longer ones go by POST, on a connection of their own, where they hold up nobody. */
export const LONGEST_ON_WIRE = 256 * 1024;

/** What a line holds beside its body, in bytes at most. */
export const LONGEST_HEAD = 64;

/** Asks the other side for the same line: a sign of life. */
export const PING = "P";

/** From the caller. `R<id> <remaining ms> <body>`, `C<id>`, or a ping. */
export type CallerFrame =
  | { readonly kind: "request"; readonly id: number; readonly budgetMs: number; readonly body: string }
  | { readonly kind: "cancel"; readonly id: number }
  | { readonly kind: "ping" };

/** From the callee. `A<id> <status> <body>`, `G<last id that was taken>`, or a ping. */
export type CalleeFrame =
  | { readonly kind: "answer"; readonly id: number; readonly status: number; readonly body: string }
  | { readonly kind: "goodbye"; readonly lastId: number }
  | { readonly kind: "ping" };

/** Each line ends in a newline, which JSON text holds nowhere else than between its tokens, where `JSON.stringify` writes none. */
export const requestLine = (id: number, remainingMs: number, body: string): string => `R${id} ${remainingMs} ${body}\n`;
export const cancelLine = (id: number): string => `C${id}\n`;
export const answerLine = (id: number, status: number, body: string): string => `A${id} ${status} ${body}\n`;
export const goodbyeLine = (lastId: number): string => `G${lastId}\n`;
export const PING_LINE = `${PING}\n`;

const MOST_DIGITS = 15;
const ZERO = 48;
const NINE = 57;
const SPACE = 32;

/** A line without its newline, or null where it is malformed. */
export function parseCallerLine(line: string): CallerFrame | null {
  if (line === PING) return { kind: "ping" };
  const end = digitsEnd(line, 1);
  const id = numberIn(line, 1, end);
  if (id === null) return null;
  if (line[0] === "C" && end === line.length) return { kind: "cancel", id };
  const second = secondNumber(line, "R", end);
  return second === null ? null : { kind: "request", id, budgetMs: second.value, body: line.slice(second.end + 1) };
}

/** A line without its newline, or null where it is malformed. */
export function parseCalleeLine(line: string): CalleeFrame | null {
  if (line === PING) return { kind: "ping" };
  const end = digitsEnd(line, 1);
  const id = numberIn(line, 1, end);
  if (id === null) return null;
  if (line[0] === "G" && end === line.length) return { kind: "goodbye", lastId: id };
  const second = secondNumber(line, "A", end);
  return second === null ? null : { kind: "answer", id, status: second.value, body: line.slice(second.end + 1) };
}

/** The id in the beginning of a request or an answer whose rest is not here, or null where it has none. */
export function idOfBeginning(head: string): number | null {
  const end = digitsEnd(head, 1);
  return (head[0] === "R" || head[0] === "A") && head.charCodeAt(end) === SPACE ? numberIn(head, 1, end) : null;
}

/** The number after the first one, with a space on either side of it. */
function secondNumber(line: string, kind: string, firstEnd: number): { readonly value: number; readonly end: number } | null {
  if (line[0] !== kind || line.charCodeAt(firstEnd) !== SPACE) return null;
  const end = digitsEnd(line, firstEnd + 1);
  const value = numberIn(line, firstEnd + 1, end);
  return value === null || line.charCodeAt(end) !== SPACE ? null : { value, end };
}

function digitsEnd(line: string, from: number): number {
  let at = from;
  for (let code = line.charCodeAt(at); code >= ZERO && code <= NINE; code = line.charCodeAt(++at));
  return at;
}

function numberIn(line: string, from: number, end: number): number | null {
  return end === from || end - from > MOST_DIGITS ? null : Number(line.slice(from, end));
}
