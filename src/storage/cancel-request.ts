import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions } from "node:tls";

/** A connection, as its server knows it. */
export interface Backend {
  readonly host: string;
  readonly port: number;
  readonly processID: number | null;
  readonly secretKey: number | null;
  /** False: without TLS. An object: how the server is verified. */
  readonly ssl: boolean | ConnectionOptions;
}

const CANCEL_CODE = 80_877_102;
const TLS_CODE = 80_877_103;
const LIMIT_MS = 5_000;

/**
 * Asks the server to stop what `backend` runs, over a connection of its own, as the protocol wants it ("Canceling Requests
 * in Progress"), encrypted where `backend` is. Best effort. The caller must close the cancelled connection at once: the request
 * might hit its next statement, and a key that was sent without encryption must be worth nothing afterwards.
 */
export function requestCancel(backend: Backend): void {
  const { host, port, processID, secretKey } = backend;
  if (processID === null || secretKey === null) return;
  const request = words(16, CANCEL_CODE, processID, secretKey);
  const socket: Socket = host.startsWith("/") ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  // It must neither outlast its use nor keep the process alive.
  socket.unref().setTimeout(LIMIT_MS, () => socket.destroy());
  socket.on("error", () => undefined);
  if (backend.ssl === false) socket.end(request);
  else encrypt(socket, backend, (secure) => secure.end(request));
}

/** As the driver does it for queries: the server is asked for TLS, says "S", and is verified before anything else is sent. */
function encrypt(socket: Socket, { host, ssl }: Backend, send: (secure: Socket) => void): void {
  socket.write(words(8, TLS_CODE));
  socket.once("data", (answer) => {
    if (answer.toString("latin1") !== "S") return void socket.destroy();
    const secure = connectTls({ socket, host, ...(isIP(host) === 0 ? { servername: host } : {}), ...givenOptions(ssl) });
    secure.on("error", () => undefined).once("secureConnect", () => send(secure));
  });
}

/** The driver hides the key from enumeration, lest it be printed. */
function givenOptions(ssl: Backend["ssl"]): ConnectionOptions {
  if (typeof ssl === "boolean") return {};
  return { ...ssl, ...(ssl.key === undefined ? {} : { key: ssl.key }) };
}

function words(...list: readonly number[]): Buffer {
  const buffer = Buffer.alloc(list.length * 4);
  list.forEach((word, index) => buffer.writeInt32BE(word, index * 4));
  return buffer;
}
