const UNDELIVERED = Symbol("undelivered");

/** `draining`: the node takes no calls any more. `refused`: anything else, as a node that is busy with others just now. */
type Reason = "draining" | "refused";

/**
 * Marks the error of a request that certainly reached no handler (connection refused, node draining or overloaded, action
 * gone): it may go to another node at once without counting as an attempt.
 */
export function markUndelivered<E extends Error>(error: E, reason: Reason = "refused"): E {
  Object.defineProperty(error, UNDELIVERED, { value: reason, configurable: true });
  return error;
}

export function isUndelivered(error: unknown): boolean {
  return reasonOf(error) !== undefined;
}

/** The node that was asked drains: it is not worth asking again. */
export function saysDraining(error: unknown): boolean {
  return reasonOf(error) === "draining";
}

/** Takes the mark off before the error leaves the call: to a handler that rethrows it, it would be a lie. */
export function clearUndelivered(error: unknown): void {
  if (isUndelivered(error)) delete (error as { [UNDELIVERED]?: Reason })[UNDELIVERED];
}

function reasonOf(error: unknown): Reason | undefined {
  return typeof error === "object" && error !== null ? (error as { [UNDELIVERED]?: Reason })[UNDELIVERED] : undefined;
}
