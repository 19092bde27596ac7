import { MeshConfigurationError, MeshError, toError } from "../errors.js";

/** SQLSTATEs with which the server says that it cannot serve this connection: shutting down, starting up, no free slot. */
const SERVER_UNAVAILABLE = new Set(["57P01", "57P02", "57P03", "57P05", "53300"]);
/** Wrong password or user, no such database: no retry helps. */
const SERVER_REFUSES = new Set(["28P01", "28000", "3D000", "42501"]);

/** The five-character SQLSTATE of a server error, else null. */
export function sqlState(error: unknown): string | null {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : null;
}

export function meansUnavailable(error: unknown): boolean {
  const state = sqlState(error);
  return state !== null && (SERVER_UNAVAILABLE.has(state) || state.startsWith("08"));
}

/** Postgres cannot be reached, or has gone away. Retryable: connections come back by themselves. */
export function databaseUnavailable(what: string, cause?: unknown): MeshError {
  const reason = cause === undefined ? "" : `: ${reasonOf(toError(cause))}`;
  return new MeshError(`${what}${reason}`, { code: "DATABASE_UNAVAILABLE", status: 503, retryable: true, cause });
}

/** What failed while a connection was being made. `option` names the one that holds the URL. */
export function connectFailure(option: string, cause: unknown): MeshError {
  if (SERVER_REFUSES.has(sqlState(cause) ?? "") || lacksPassword(cause)) {
    return new MeshConfigurationError(`${option}: Postgres refuses the connection: ${toError(cause).message}`, { cause });
  }
  return databaseUnavailable("Postgres cannot be reached", cause);
}

/** The driver's error where the server asks for a password and the URL has none. */
function lacksPassword(cause: unknown): boolean {
  return /client password must be a/.test(toError(cause).message);
}

/** An address with several records fails with an AggregateError, whose own message is empty. */
function reasonOf(error: Error): string {
  if (error.message !== "") return error.message;
  const [first] = (error as AggregateError).errors ?? [];
  return first === undefined ? error.name : toError(first).message;
}
