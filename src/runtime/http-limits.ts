import type { IncomingMessage, ServerOptions } from "node:http";

/** How often Node looks for connections that are over a limit: often enough for the limit to mean something. */
const CHECKS_PER_LIMIT = 4;
const LONGEST_CHECK_MS = 5_000;
/** A request with more header lines is refused. Node by itself drops what is over its limit, which a guard would never see. */
export const MOST_HEADERS = 200;

export interface HttpLimits {
  readonly maxBodyBytes: number;
  readonly maxConnections: number;
  readonly requestTimeoutMs: number;
  /** Also the time in which a fresh connection must have sent its first head. Never more than `requestTimeoutMs`. */
  readonly headersTimeoutMs: number;
  readonly maxHeaderBytes: number;
  readonly keepAliveTimeoutMs: number;
}

export function serverLimits({ requestTimeoutMs, headersTimeoutMs, maxHeaderBytes, keepAliveTimeoutMs }: HttpLimits): ServerOptions {
  const headersTimeout = Math.min(headersTimeoutMs, requestTimeoutMs);
  return {
    requestTimeout: requestTimeoutMs,
    headersTimeout,
    keepAliveTimeout: keepAliveTimeoutMs,
    connectionsCheckingInterval: Math.min(LONGEST_CHECK_MS, Math.ceil(headersTimeout / CHECKS_PER_LIMIT)),
    maxHeaderSize: maxHeaderBytes,
    // Said here, so that no flag of the process can switch it on.
    insecureHTTPParser: false,
  };
}

/** Why no route is to see a request that Node's parser has let through. */
export function faultOfHead({ rawHeaders, httpVersionMajor }: IncomingMessage): { readonly status: number; readonly error: string } | null {
  if (rawHeaders.length > 2 * MOST_HEADERS) return { status: 431, error: `a request may have ${MOST_HEADERS} header lines at most` };
  // Written in the text of HTTP/1, it is a mistake, or meant for a proxy that reads it otherwise.
  if (httpVersionMajor !== 1) return { status: 505, error: "only HTTP/1.0 and HTTP/1.1 are spoken here" };
  return null;
}
