const UNDELIVERED = Symbol("undelivered");

/**
 * Marks the error of a request that certainly reached no handler (connection refused, node draining, action gone): it
 * may go to another node at once without counting as an attempt.
 */
export function markUndelivered<E extends Error>(error: E): E {
  Object.defineProperty(error, UNDELIVERED, { value: true, configurable: true });
  return error;
}

export function isUndelivered(error: unknown): boolean {
  return typeof error === "object" && error !== null && (error as { [UNDELIVERED]?: true })[UNDELIVERED] === true;
}

/** Takes the mark off before the error leaves the call: to a handler that rethrows it, it would be a lie. */
export function clearUndelivered(error: unknown): void {
  if (isUndelivered(error)) delete (error as { [UNDELIVERED]?: true })[UNDELIVERED];
}
