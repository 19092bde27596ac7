import { MeshConfigurationError } from "../errors.js";

const FARTHEST_GUESS = 3;

/** Throws for the first key that is not in `known`, with the nearest known one as a guess. */
export function refuseUnknownKeys(what: string, given: object, known: readonly string[]): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const guess = nearest(key, known);
    const hint = guess === undefined ? `known are: ${known.join(", ")}` : `did you mean "${guess}"?`;
    throw new MeshConfigurationError(`unknown ${what} "${key}"; ${hint}`);
  }
}

/** The name that is fewest edits away from `name`, if it is near enough to be a guess. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = FARTHEST_GUESS + 1;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
