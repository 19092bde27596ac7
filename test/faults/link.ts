import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

type State = "open" | "dropped" | "black-hole" | "half-open";

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
}

/** A TCP proxy in front of one port of this machine, with the faults of a network. */
export class Link {
  readonly #server: Server;
  readonly #target: () => number;
  readonly #pairs = new Set<Pair>();
  #state: State = "open";
  #delayMs = 0;

  private constructor(target: () => number) {
    this.#target = target;
    this.#server = createServer((client) => this.#accept(client));
  }

  static async to(target: () => number): Promise<Link> {
    const link = new Link(target);
    await new Promise<void>((resolve, reject) => link.#server.once("error", reject).listen(0, "127.0.0.1", resolve));
    return link;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Cuts the connections, and new ones until `heal`. */
  drop(): void {
    this.#state = "dropped";
    this.cut();
  }

  /** Cuts the connections there are; new ones are let through. */
  cut(): void {
    for (const { client, upstream } of this.#pairs) {
      reset(client);
      upstream.destroy();
    }
  }

  /** No byte moves any more, and no connection ends. What was sent arrives after `heal`. */
  blackHole(): void {
    this.#enter("black-hole");
  }

  /** What clients send arrives; no answer comes back until `heal`. */
  halfOpen(): void {
    this.#enter("half-open");
  }

  /** Each way takes this much longer. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  heal(): void {
    this.#delayMs = 0;
    this.#enter("open");
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #enter(state: State): void {
    this.#state = state;
    for (const pair of this.#pairs) this.#apply(pair);
  }

  #apply({ client, upstream }: Pair): void {
    const holds = { "open": [false, false], "dropped": [false, false], "black-hole": [true, true], "half-open": [false, true] };
    const [client_, upstream_] = holds[this.#state] as [boolean, boolean];
    client[client_ ? "pause" : "resume"]();
    upstream[upstream_ ? "pause" : "resume"]();
  }

  #accept(client: Socket): void {
    if (this.#state === "dropped") return reset(client);
    const pair = { client, upstream: connect(this.#target(), "127.0.0.1") };
    this.#pairs.add(pair);
    this.#carry(pair.client, pair.upstream, pair);
    this.#carry(pair.upstream, pair.client, pair);
    this.#apply(pair);
  }

  #carry(from: Socket, to: Socket, pair: Pair): void {
    const later = this.#later();
    from.setNoDelay(true);
    from.on("data", (data) => later(() => to.writable && to.write(data)));
    from.on("end", () => later(() => to.end()));
    // An error closes too.
    from.on("error", () => undefined);
    from.on("close", () => {
      this.#pairs.delete(pair);
      later(() => to.destroy());
    });
  }

  /** For one way of a connection: each act after the delay of its time, and none before those that came earlier. */
  #later(): (act: () => void) => void {
    const waiting: (() => void)[] = [];
    return (act) => {
      if (this.#delayMs === 0 && waiting.length === 0) return act();
      waiting.push(act);
      setTimeout(() => waiting.shift()!(), this.#delayMs);
    };
  }
}

/** Node spins for ever at its exit where a socket was reset that was being shut down. */
function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
