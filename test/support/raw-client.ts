import { connect, type Socket } from "node:net";

/** A bare connection to an HTTP server, for what no HTTP client would send. Whoever makes one destroys it. */
export class RawClient {
  received = "";
  closed = false;
  readonly socket: Socket;

  constructor(url: string) {
    const { port, hostname } = new URL(url);
    this.socket = connect(Number(port), hostname);
    this.socket.on("data", (chunk) => (this.received += chunk.toString("latin1"))).on("error", () => undefined).on("close", () => (this.closed = true));
  }

  send(text: string | Buffer): this {
    this.socket.write(text);
    return this;
  }

  /** One byte each `everyMs`, until the other side closes. */
  drip(text: string, everyMs: number): this {
    let at = 0;
    const timer = setInterval(() => this.socket.write(text[at++ % text.length]!), everyMs);
    this.socket.once("close", () => clearInterval(timer));
    return this;
  }

  get statuses(): string[] {
    return [...this.received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => match[1] as string);
  }
}
