import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** A TCP relay to a server, which can stop relaying or cut what it relays. */
export interface Relay {
  /** `target` with host and port of the relay. */
  readonly url: string;
  /** Keeps connections open, and moves no byte until `thaw`. */
  freeze(): void;
  thaw(): void;
  /** Cuts all connections. New ones are refused until `open`. */
  cut(): Promise<void>;
  open(): Promise<void>;
  close(): Promise<void>;
  /** What goes to the server in place of what a client sent. */
  rewrite: (sent: Buffer) => Buffer;
  /** What comes back in place of what the server answered. */
  rewriteAnswer: (answer: Buffer) => Buffer;
  /** Called with what clients send; true: cut this connection instead of relaying it. */
  cutWhen: (sent: Buffer) => boolean;
}

export async function relayTo(target: string): Promise<Relay> {
  const { hostname, port } = new URL(target);
  const pairs = new Set<[Socket, Socket]>();
  let frozen = false;
  let server: Server;

  const accept = (client: Socket): void => {
    const upstream = connect(Number(port || 5432), hostname);
    const pair: [Socket, Socket] = [client, upstream];
    pairs.add(pair);
    const end = (): void => {
      pairs.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of pair) socket.on("error", end).on("close", end);
    client.on("data", (data) => (relay.cutWhen(data) ? end() : upstream.write(relay.rewrite(data))));
    upstream.on("data", (data) => client.write(relay.rewriteAnswer(data)));
    if (frozen) for (const socket of pair) socket.pause();
  };
  const listen = async (at: number): Promise<void> => {
    server = createServer(accept);
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(at, "127.0.0.1", resolve));
  };
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const [client] of pairs) client.destroy();
    });

  await listen(0);
  const own = (server!.address() as AddressInfo).port;
  const url = new URL(target);
  url.hostname = "127.0.0.1";
  url.port = String(own);
  const each = (act: (socket: Socket) => void): void => {
    for (const pair of pairs) pair.forEach(act);
  };
  const relay: Relay = {
    url: url.href,
    freeze: () => {
      frozen = true;
      each((socket) => socket.pause());
    },
    thaw: () => {
      frozen = false;
      each((socket) => socket.resume());
    },
    cut: stop,
    open: () => listen(own),
    close: stop,
    cutWhen: () => false,
    rewrite: (sent) => sent,
    rewriteAnswer: (answer) => answer,
  };
  return relay;
}
