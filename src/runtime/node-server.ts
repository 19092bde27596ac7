import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Server, ServerOptions } from "node:http";
import type { Logger } from "../logger.js";
import type { TlsTexts } from "../tls.js";

/** Certificate and key as PEM. With `ca`, clients must show a certificate that it has signed. */
export type ServerTls = TlsTexts;

/** A client that has not finished its handshake by then is cut off. */
export const HANDSHAKE_LIMIT_MS = 10_000;

/** The server of Node for HTTP, or for HTTPS where `tls` is given. */
export function createNodeServer(options: ServerOptions, tls: ServerTls | null, log: Logger, handshakeLimitMs = HANDSHAKE_LIMIT_MS): Server {
  if (tls === null) return createServer(options);
  const server = createTlsServer({
    ...options,
    ...tls,
    minVersion: "TLSv1.2",
    handshakeTimeout: handshakeLimitMs,
    requestCert: tls.ca !== undefined,
    rejectUnauthorized: true,
  });
  // Strangers and scanners cause these at will. Node closes the connection.
  server.on("tlsClientError", (error, socket) => {
    log.debug("a TLS handshake failed", { remoteAddress: socket.remoteAddress, certificate: socket.authorizationError, err: error });
  });
  return server;
}
