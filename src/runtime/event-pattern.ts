const ANY_ONE = "*";
const ANY_NUMBER = "**";

/**
 * Compiles a subscription pattern to a predicate over event names. `*` is one segment, `**` any number (zero too); a
 * star inside a longer segment stands for itself.
 */
export function compilePattern(pattern: string): (name: string) => boolean {
  const segments = segmentsOf(pattern);
  if (!segments.some(isWildcard)) return (name) => name === pattern;
  return (name) => matches(segments, name.split("."));
}

/**
 * The same as a regular expression for Postgres (`name ~ regex`), or null where the pattern is a plain name. Runs of
 * `**` are one `**` in both forms.
 */
export function patternToRegex(pattern: string): string | null {
  const segments = segmentsOf(pattern);
  if (!segments.some(isWildcard)) return null;
  if (segments.length === 1) return segments[0] === ANY_NUMBER ? "^.*$" : "^[^.]*$";
  return `^${segments.map(segmentRegex).join("")}$`;
}

function segmentsOf(pattern: string): string[] {
  return pattern.split(".").filter((segment, index, all) => segment !== ANY_NUMBER || all[index - 1] !== ANY_NUMBER);
}

function isWildcard(segment: string): boolean {
  return segment === ANY_ONE || segment === ANY_NUMBER;
}

/** `**` takes the dot along with what it stands for: the one after it at the start of a pattern, else the one before. */
function segmentRegex(segment: string, index: number, all: readonly string[]): string {
  if (segment === ANY_NUMBER) return index === 0 ? "(?:.*\\.)?" : "(?:\\..*)?";
  const dot = index === 0 || (index === 1 && all[0] === ANY_NUMBER) ? "" : "\\.";
  return dot + (segment === ANY_ONE ? "[^.]*" : escapeLiteral(segment));
}

/** In Postgres a backslash makes ASCII punctuation literal, but gives letters and digits a meaning. */
function escapeLiteral(text: string): string {
  return text.replace(/[^A-Za-z0-9_\u0080-\uffff]/g, "\\$&");
}

/**
 * Greedy match that goes back to the last `**` only: an earlier one never needs to take more, since the later one can
 * take what it leaves. At worst segments of the pattern times segments of the name.
 */
function matches(pattern: readonly string[], name: readonly string[]): boolean {
  let at = 0;
  let resume = -1;
  let taken = 0;
  for (let index = 0; index < name.length; ) {
    if (pattern[at] === ANY_NUMBER) {
      resume = ++at;
      taken = index;
    } else if (at < pattern.length && (pattern[at] === ANY_ONE || pattern[at] === name[index])) {
      at++;
      index++;
    } else if (resume >= 0) {
      at = resume;
      index = ++taken;
    } else return false;
  }
  while (pattern[at] === ANY_NUMBER) at++;
  return at === pattern.length;
}
