import { MeshConfigurationError, MeshError, toError } from "../errors.js";
import { withPublicMessage } from "../public-message.js";
import { isCertificateError } from "../tls.js";

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

/** With which Postgres refuses a prepared statement that the session does not have. */
export const UNKNOWN_STATEMENT = "26000";

/** A prepared statement can fail like this because it is one: it is gone, or what it names has been made anew. */
export function mayBeOutdated(error: unknown): boolean {
  return /^(?:26000|0A|42)/.test(sqlState(error) ?? "");
}

/** Postgres cannot be reached, or has gone away. Retryable: connections come back by themselves. `cause` stays in this process. */
export function databaseUnavailable(what: string, cause?: unknown): MeshError {
  const reason = cause === undefined ? "" : `: ${reasonOf(toError(cause))}`;
  return withPublicMessage(new MeshError(`${what}${reason}`, { code: "DATABASE_UNAVAILABLE", status: 503, retryable: true, cause }), what);
}

/** What failed while a connection was being made. `option` names the one that holds the URL. */
export function connectFailure(option: string, cause: unknown): MeshError {
  if (SERVER_REFUSES.has(sqlState(cause) ?? "") || lacksPassword(cause)) {
    return misconfigured(option, { what: "Postgres refuses the connection", reason: `: ${toError(cause).message}` }, cause);
  }
  const fault = tlsFault(cause);
  if (fault !== null) return misconfigured(option, fault, cause);
  return databaseUnavailable("Postgres cannot be reached", cause);
}

/** `reason` is what the driver or the socket says, and what follows from it: for the log only. */
interface Fault {
  readonly what: string;
  readonly reason: string;
}

function misconfigured(option: string, { what, reason }: Fault, cause: unknown): MeshError {
  return withPublicMessage(new MeshConfigurationError(`${option}: ${what}${reason}`, { cause }), `${option}: ${what}`);
}

/** What is wrong with TLS and stays wrong, with the part of the URL that changes it; else null. */
function tlsFault(cause: unknown): Fault | null {
  const { code, syscall, message } = toError(cause) as NodeJS.ErrnoException;
  if (isCertificateError(cause)) {
    const reason = ` (${String(code)}): ${message}; sslrootcert in the URL names the file of its CA, and the host in the URL must be one that the certificate names`;
    return { what: "the certificate of Postgres is refused", reason };
  }
  // Of all that connecting does, only the files of sslrootcert, sslcert and sslkey are opened; sockets are read too.
  if (syscall === "open" || code === "EISDIR") return { what: "a file that sslrootcert, sslcert or sslkey in the URL names cannot be read", reason: `: ${message}` };
  if (/server does not support SSL/.test(message)) {
    return { what: "Postgres does not offer TLS, which sslmode in the URL demands", reason: ": turn ssl on in the server, or leave sslmode out on a network that is private" };
  }
  return null;
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
