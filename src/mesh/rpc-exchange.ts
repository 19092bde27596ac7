import { MeshPayloadTooLargeError } from "../errors.js";
import { SIGNATURE_HEADER } from "./rpc-signature.js";

export interface RawAnswer {
  readonly status: number;
  readonly body: Buffer | string;
  /** The signature header; null where there is none, or several. */
  readonly signature: string | null;
}

export const textOf = ({ body }: RawAnswer): string => (typeof body === "string" ? body : body.toString("utf8"));

/** The part of undici's controller that an exchange needs. */
interface ExchangeController {
  abort(reason: Error): void;
}

export interface ExchangeOwner {
  readonly maxBytes: number;
  /** The peer has begun to answer. */
  answering(): void;
  /** The whole answer is here. */
  answered(answer: RawAnswer): void;
  /** There will be no answer. `sent`: the request may have reached the peer. */
  failed(error: Error, sent: boolean): void;
  /** The connection is free again, or the request has left the queue. Comes last, once, also after `abort`. */
  released(): void;
}

/** One request and its answer, as undici's dispatch handler. After `abort` nothing but `released` is heard of it. */
export class Exchange {
  readonly #owner: ExchangeOwner;
  #controller: ExchangeController | undefined;
  #abortedBy: Error | undefined;
  #over = false;
  #status = 0;
  #signature: string | null = null;
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(owner: ExchangeOwner) {
    this.#owner = owner;
  }

  /** Takes the request back: closes its connection, or skips it when its turn comes. */
  abort(reason: Error): void {
    this.#over = true;
    this.#abortedBy = reason;
    this.#controller?.abort(reason);
  }

  /** Its time is over before it has been sent: there is no connection to release. */
  expire(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#owner.failed(error, false);
  }

  onRequestStart(controller: ExchangeController): void {
    this.#controller = controller;
    if (this.#abortedBy !== undefined) controller.abort(this.#abortedBy);
  }

  onResponseStart(_controller: ExchangeController, status: number, headers: Readonly<Record<string, unknown>>): void {
    const signature = headers[SIGNATURE_HEADER];
    this.#status = status;
    this.#signature = typeof signature === "string" ? signature : null;
    if (!this.#over) this.#owner.answering();
  }

  onResponseData(_controller: ExchangeController, chunk: Buffer): void {
    if (this.#over) return;
    this.#bytes += chunk.byteLength;
    this.#chunks.push(chunk);
    if (this.#bytes > this.#owner.maxBytes) this.#refuse();
  }

  onResponseEnd(): void {
    this.#owner.released();
    if (this.#over) return;
    this.#over = true;
    this.#owner.answered({ status: this.#status, body: this.#body(), signature: this.#signature });
  }

  onResponseError(_controller: ExchangeController | undefined, error: Error): void {
    this.#owner.released();
    if (this.#over) return;
    this.#over = true;
    this.#owner.failed(error, this.#controller !== undefined);
  }

  #body(): Buffer {
    return this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
  }

  #refuse(): void {
    const error = new MeshPayloadTooLargeError(`an answer of a mesh peer is longer than maxResultBytes (${this.#owner.maxBytes})`);
    this.#owner.failed(error, true);
    this.#chunks = [];
    this.abort(error);
  }
}
