import { ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";
import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";

/** An upgrade that some registration may take. */
export interface Upgrade {
  /** Lower case. */
  readonly protocol: string;
  readonly socket: Socket;
  readonly head: Buffer;
}

/** The first protocol of the `Upgrade` header that is `offered`. Upgrades with a body are none: it could not be read. */
export function chosenProtocol(request: IncomingMessage, offered: ReadonlySet<string>): string | undefined {
  if (request.method !== "GET") return undefined;
  return tokens(request.headers.upgrade).find((token) => offered.has(token));
}

/** A response that refuses an upgrade, and closes the connection once it is written. */
export function responseTo(request: IncomingMessage, socket: Socket): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once("finish", () => socket.destroySoon());
  return response;
}

/**
 * Gives a connection back to the server, with the request as if it had asked for no upgrade. As soon as a server
 * listens for upgrades, Node hands it all of them, also those that a client merely offers (`Upgrade: h2c`), whose
 * request RFC 9110, section 7.8, lets a server answer as it is.
 */
export function reinject(server: Server, request: IncomingMessage, socket: Socket, head: Buffer): void {
  const lines = [`${request.method ?? "GET"} ${request.url ?? "/"} HTTP/${request.httpVersion}`];
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i] as string;
    const value = withoutUpgrade(name.toLowerCase(), request.rawHeaders[i + 1] as string);
    if (value !== "") lines.push(`${name}: ${value}`);
  }
  socket.unshift(Buffer.concat([Buffer.from(lines.join("\r\n") + "\r\n\r\n", "latin1"), head]));
  // An HTTPS server takes "connection" for a handshake to come.
  server.emit(socket instanceof TLSSocket ? "secureConnection" : "connection", socket);
}

function withoutUpgrade(name: string, value: string): string {
  if (name === "upgrade" || name === "http2-settings") return "";
  if (name !== "connection") return value;
  return tokens(value).filter((token) => token !== "upgrade" && token !== "http2-settings").join(", ");
}

function tokens(list: string | undefined): string[] {
  return (list ?? "").split(",").map((token) => token.trim().toLowerCase());
}
