/** Data exceptions, and syntax errors or violated access rules: their messages quote values of parameters and pieces of SQL. */
const QUOTING_CLASSES = ["22", "42"];

/** From the first quote to the last, in the languages that servers speak: what stands between may hold quotes of its own. */
const QUOTED = /["«»„“”].*["«»„“”]/s;

/** Under `Symbol.for`, as errors of another copy of the package have it too. */
const TOLD = Symbol.for("@chimpbase/mesh/publicMessage");

/** Gives an error the message that those outside this process see in production, in place of its own. */
export function withPublicMessage<E extends Error>(error: E, told: string): E {
  return Object.defineProperty(error, TOLD, { value: told });
}

/**
 * The message of an error for those outside this process. In production, what Postgres quotes in it stays here: a value
 * (`invalid input syntax for type integer: "…"`) or a piece of the statement; and so does why a connection failed, which
 * names addresses, roles and files. Whole in the log, and everywhere else.
 */
export function publicMessage(error: unknown, production = process.env.NODE_ENV === "production"): string {
  const told = production ? read(error, TOLD) : undefined;
  if (typeof told === "string") return told;
  const message = read(error, "message");
  const text = typeof message === "string" ? message : "";
  return production && quotesSql(error) ? text.replace(QUOTED, '"…"') : text;
}

/** The driver's errors have a SQLSTATE as code, and what the server said in fields of their own. */
function quotesSql(error: unknown): boolean {
  const code = read(error, "code");
  if (typeof code !== "string" || !/^[0-9A-Z]{5}$/.test(code) || typeof read(error, "severity") !== "string") return false;
  return QUOTING_CLASSES.some((start) => code.startsWith(start));
}

/** Errors of users may have throwing getters, or be proxies. */
function read(from: unknown, key: string | symbol): unknown {
  try {
    return (from as Record<string | symbol, unknown> | null | undefined)?.[key];
  } catch {
    return undefined;
  }
}
