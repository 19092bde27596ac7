/** Compiles a subscription pattern to a predicate over event names. `*` is one segment, `**` any number (zero too). */
export function compilePattern(_pattern: string): (name: string) => boolean {
  throw new Error("stub");
}

/** The same as a POSIX regular expression for Postgres, or null where the pattern is a plain name. */
export function patternToRegex(_pattern: string): string | null {
  throw new Error("stub");
}
