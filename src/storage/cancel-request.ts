import { connect, type Socket } from "node:net";

/** A connection, as its server knows it. */
export interface Backend {
  readonly host: string;
  readonly port: number;
  readonly processID: number | null;
  readonly secretKey: number | null;
}

const CODE = 80_877_102;
const LIMIT_MS = 5_000;

/**
 * Asks the server to stop what `backend` runs, over a connection of its own, as the protocol wants it ("Canceling Requests
 * in Progress"). Best effort. The caller must close the cancelled connection at once: the request might hit its next
 * statement, and the key, which is sent without encryption, must be worth nothing afterwards.
 */
export function requestCancel({ host, port, processID, secretKey }: Backend): void {
  if (processID === null || secretKey === null) return;
  const request = Buffer.alloc(16);
  [request.length, CODE, processID, secretKey].forEach((word, index) => request.writeInt32BE(word, index * 4));
  const socket: Socket = host.startsWith("/") ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  // It must neither outlast its use nor keep the process alive.
  socket.unref().setTimeout(LIMIT_MS, () => socket.destroy());
  socket.on("error", () => undefined).end(request);
}
