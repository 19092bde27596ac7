import { MeshConfigurationError } from "../errors.js";
import { suggestion } from "../suggestion.js";

/** Throws for the first key that is not in `known`, with the nearest known one as a guess. */
export function refuseUnknownKeys(what: string, given: object, known: readonly string[]): void {
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) throw new MeshConfigurationError(`unknown ${what} "${key}"; ${suggestion(key, known)}`);
  }
}
