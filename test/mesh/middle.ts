import { createServer, request as httpRequest, type IncomingHttpHeaders, type OutgoingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface Passing {
  readonly url: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: string;
}

export interface Returning {
  readonly status: number;
  readonly headers: OutgoingHttpHeaders;
  readonly body: string;
}

/** Somebody between two nodes who sees all that passes, and may change it. */
export class Middle {
  readonly requests: Passing[] = [];
  readonly answers: Returning[] = [];
  /** What goes on to the node in place of a request; an answer in place of it is given at once. */
  onRequest: (request: Passing) => Passing | Returning = (request) => request;
  /** What goes back in place of the answer to a request. */
  onAnswer: (answer: Returning, request: Passing) => Returning | Promise<Returning> = (answer) => answer;
  readonly #server: Server;
  readonly #target: { readonly port: number };

  private constructor(target: { readonly port: number }) {
    this.#target = target;
    this.#server = createServer((incoming, response) => {
      void (async () => {
        const passing = { url: incoming.url ?? "", headers: withoutHop(incoming.headers), body: await textOf(incoming) };
        this.requests.push(passing);
        const onward = this.onRequest(passing);
        const { status, headers, body } = "status" in onward ? onward : await this.onAnswer(await this.forward(onward), passing);
        response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
      })().catch(() => response.destroy());
    });
  }

  static async before(target: { readonly port: number }): Promise<Middle> {
    const middle = new Middle(target);
    await new Promise<void>((resolve) => middle.#server.listen(0, "127.0.0.1", resolve));
    return middle;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** All that has passed in both directions, as one text. */
  get everything(): string {
    return JSON.stringify([this.requests, this.answers]);
  }

  /** Sends a request to a node, by default the one behind; nobody is told of the answer but the caller of this. */
  forward({ url, headers, body }: Passing, to: { readonly port: number } = this.#target): Promise<Returning> {
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest({ host: "127.0.0.1", port: to.port, path: url, method: "POST", agent: false, headers: { ...headers, "content-length": Buffer.byteLength(body) } }, (incoming) => {
        textOf(incoming).then((text) => {
          const answer = { status: incoming.statusCode!, headers: withoutHop(incoming.headers), body: text };
          this.answers.push(answer);
          resolve(answer);
        }, reject);
      });
      outgoing.on("error", reject).end(body);
    });
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function withoutHop({ connection: _connection, "content-length": _length, "keep-alive": _keep, "transfer-encoding": _encoding, ...rest }: IncomingHttpHeaders): OutgoingHttpHeaders {
  return rest;
}

async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
