const FARTHEST_GUESS = 3;
/** Names end where messages would; nobody's input makes the comparison long. */
const LONGEST_COMPARED = 64;

/** `did you mean "timeoutMs"?`, or what is known where nothing is near. */
export function suggestion(name: string, known: readonly string[]): string {
  const guess = nearestName(name, known);
  return guess === undefined ? `known are: ${known.join(", ")}` : `did you mean "${guess}"?`;
}

/** The name that is fewest edits away from `name`, if it is near enough to be a guess. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = FARTHEST_GUESS + 1;
  for (const candidate of known) {
    const distance = editDistance(comparable(name), comparable(candidate));
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

function comparable(name: string): string {
  return name.slice(0, LONGEST_COMPARED).toLowerCase();
}

/** Edit distance after Wagner and Fischer (1974), one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
