import { connect, type Socket } from "node:net";
import { until } from "../support/wait.js";
import { PATH, TOKEN } from "./rpc-fixture.js";

export interface Shown {
  readonly token?: string | null;
  readonly target?: string;
  readonly more?: string;
}

/** The request for a wire, as text. */
export function upgradeRequest({ token = TOKEN, target, more = "" }: Shown = {}): string {
  const shown = `${token === null ? "" : `x-chimpbase-mesh-token: ${token}\r\n`}${target === undefined ? "" : `x-chimpbase-mesh-target: ${target}\r\n`}`;
  return `GET ${PATH} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: chimpbase-mesh.1\r\nx-chimpbase-mesh-caller: raw\r\n${shown}${more}\r\n`;
}

export interface RawAnswer {
  readonly id: number;
  readonly status: number;
  readonly json: Record<string, unknown>;
}

/** The caller's end of a wire, of which every byte is the test's own. */
export class RawWire {
  readonly socket: Socket;
  closed = false;
  #received: Buffer[] = [];

  constructor(node: { readonly port: number }) {
    this.socket = connect(node.port, "127.0.0.1").setNoDelay(true);
    this.socket.on("error", () => undefined).on("close", () => (this.closed = true));
    this.socket.on("data", (chunk: Buffer) => void this.#received.push(chunk));
  }

  /** A wire that has been let in. */
  static async to(node: { readonly port: number }, shown?: Shown): Promise<RawWire> {
    const wire = new RawWire(node).send(upgradeRequest(shown));
    await until(() => wire.received.includes("\r\n\r\n"));
    if (!wire.received.startsWith("HTTP/1.1 101 ")) throw new Error(wire.received);
    return wire;
  }

  get received(): string {
    this.#received = [Buffer.concat(this.#received)];
    return this.#received[0]!.toString("utf8");
  }

  /** What has come after the head of the answer to the upgrade. */
  get lines(): string[] {
    return this.received.split("\r\n\r\n").slice(1).join("\r\n\r\n").split("\n").slice(0, -1);
  }

  get answers(): RawAnswer[] {
    return this.lines.flatMap((line) => {
      const match = /^A(\d+) (\d+) (.*)$/s.exec(line);
      return match === null ? [] : [{ id: Number(match[1]), status: Number(match[2]), json: JSON.parse(match[3]!) as Record<string, unknown> }];
    });
  }

  send(bytes: string | Buffer): this {
    this.socket.write(bytes);
    return this;
  }

  request(id: number, actionName: string, args?: unknown, budgetMs = 5_000): this {
    return this.send(`R${id} ${budgetMs} ${JSON.stringify({ actionName, args })}\n`);
  }

  /** Resolves with the answer to a request. */
  answer(id: number): Promise<RawAnswer> {
    return until(() => this.answers.find((answer) => answer.id === id));
  }

  destroy(): void {
    this.socket.destroy();
  }
}
