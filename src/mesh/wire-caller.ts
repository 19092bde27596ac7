import type { Duplex } from "node:stream";
import { MeshPayloadTooLargeError } from "../errors.js";
import { IdTable } from "./id-table.js";
import { isAtMost } from "./rpc-codec.js";
import type { RawAnswer } from "./rpc-exchange.js";
import { cancelLine, idOfBeginning, LONGEST_HEAD, parseCalleeLine, PING_LINE, requestLine, type CalleeFrame } from "./wire-frames.js";
import { LineReader } from "./wire-lines.js";
import { LineWriter } from "./wire-writer.js";

/** What becomes of a request on a wire: one of the three, once, unless it is taken back. */
export interface WireRequest {
  answered(answer: RawAnswer): void;
  /** The wire has ended, and the peer may have taken the request. */
  failed(error: Error): void;
  /** The wire has ended, and the peer has not taken the request: it says so, or was not sent it. */
  untaken(): void;
}

export interface CallerWireOptions {
  /** Longest answer, in bytes. */
  readonly maxAnswerBytes: number;
  /** Something has come from the peer. */
  readonly onSign: () => void;
  /** Nothing is under way any more. */
  readonly onIdle: () => void;
  /** Comes once, after everything that was under way has been told. */
  readonly onEnd: () => void;
}

/** From here on the peer does not keep up with what it is sent. */
export const MOST_UNREAD_BYTES = 1024 ** 2;
/** Time for a sign of life. Without one the peer is sent no more on this wire, until there is one. */
export const PROBE_MS = 2_000;
/** Of silence, since it was asked, after which the wire ends. Longer than handlers compute at a stretch: all that is under way on it fails. */
export const SILENCE_MS = 15_000;

type Answer = Extract<CalleeFrame, { kind: "answer" }>;

/** The end of a wire from which requests go out, any number at a time. */
export class CallerWire {
  readonly #socket: Duplex;
  readonly #options: CallerWireOptions;
  readonly #writer: LineWriter;
  readonly #reader: LineReader;
  readonly #requests = new IdTable<WireRequest>();
  #lastId = 0;
  /** Up to which requests have been handed to the socket. */
  #writtenId = 0;
  /** Up to which the peer has taken requests, once it has said goodbye. */
  #takenId = Infinity;
  #ended = false;
  #error: Error | undefined;
  /** Runs while the peer owes a sign of life. */
  #probe: NodeJS.Timeout | undefined;
  #silent = false;

  constructor(socket: Duplex, options: CallerWireOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#writer = new LineWriter(socket, () => (this.#writtenId = this.#lastId));
    this.#reader = new LineReader({
      maxBytes: options.maxAnswerBytes + LONGEST_HEAD,
      onLine: (line) => this.#onLine(line),
      onTooLong: (head) => this.#onTooLong(idOfBeginning(head)),
    });
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.once("error", (error) => (this.#error = error)).on("error", () => undefined);
    socket.once("end", () => this.destroy(new Error("the peer has closed the wire")));
    socket.once("close", () => this.destroy(new Error("the wire was closed")));
  }

  /** Requests under way. */
  get size(): number {
    return this.#requests.size;
  }

  /** It may be used for another request. */
  get isOpen(): boolean {
    return !this.#ended && !this.#silent && this.#takenId === Infinity && this.#writer.backlog <= MOST_UNREAD_BYTES;
  }

  /** Sends a request. What is returned takes it back, so that the peer cancels the handler. */
  send(remainingMs: number, body: string, request: WireRequest): () => void {
    const id = ++this.#lastId;
    this.#requests.add(id, request);
    this.#writer.write(requestLine(id, remainingMs, body));
    return () => this.#takeBack(id);
  }

  /** Asks for a sign of life. Without one in time others take the calls that follow, and in the end the wire ends. */
  probe(): void {
    if (this.#probe !== undefined || this.#ended) return;
    this.#writer.write(PING_LINE);
    this.#waitForSign(PROBE_MS, () => this.#onSilence());
  }

  /** Ends the wire. What is under way on it fails, by the error of the connection where it had one. */
  destroy(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#endProbe();
    this.#reader.stop();
    this.#socket.destroy();
    const cause = this.#error ?? error;
    for (const [id, request] of this.#requests.takeAll()) {
      if (id > Math.min(this.#takenId, this.#writtenId)) request.untaken();
      else request.failed(cause);
    }
    this.#options.onEnd();
  }

  #waitForSign(ms: number, otherwise: () => void): void {
    const probe = setTimeout(() => {
      // Where this node itself has been busy or frozen, the sign may be here: one turn of the event loop brings it in.
      setImmediate(() => {
        if (this.#probe === probe) otherwise();
      });
    }, ms);
    this.#probe = probe;
  }

  #onSilence(): void {
    this.#silent = true;
    this.#waitForSign(SILENCE_MS - PROBE_MS, () => this.destroy(new Error(`no sign of life within ${SILENCE_MS}ms`)));
    this.#endIfSilentAndIdle();
  }

  #endIfSilentAndIdle(): void {
    if (this.#silent && this.size === 0) this.destroy(new Error(`no sign of life within ${PROBE_MS}ms`));
  }

  #endProbe(): void {
    clearTimeout(this.#probe);
    this.#probe = undefined;
    this.#silent = false;
  }

  #takeBack(id: number): void {
    if (this.#requests.take(id) === undefined) return;
    this.#writer.write(cancelLine(id));
    this.#noteIfIdle();
  }

  #onData(chunk: Buffer): void {
    if (this.#probe !== undefined) this.#endProbe();
    this.#options.onSign();
    this.#reader.push(chunk);
  }

  #onLine(line: string): void {
    const frame = parseCalleeLine(line);
    if (frame === null) return this.destroy(new Error("the peer has sent something that is no line of a wire"));
    if (frame.kind === "answer") this.#onAnswer(frame);
    else if (frame.kind === "goodbye") this.#takenId = frame.lastId;
  }

  /** None under way where it has been taken back in the meantime. */
  #onAnswer({ id, status, body }: Answer): void {
    if (!isAtMost(body, this.#options.maxAnswerBytes)) return this.#onTooLong(id);
    const request = this.#requests.take(id);
    if (request === undefined) return;
    request.answered({ status, body, signature: null });
    this.#noteIfIdle();
  }

  /** More than nodes answer with. What follows is not waited for. */
  #onTooLong(id: number | null): void {
    const error = new MeshPayloadTooLargeError(`an answer of a mesh peer is longer than maxResultBytes (${this.#options.maxAnswerBytes})`);
    if (id !== null) this.#requests.take(id)?.failed(error);
    this.destroy(new Error("the peer has sent an answer that is too long"));
  }

  #noteIfIdle(): void {
    if (this.#requests.size > 0) return;
    this.#options.onIdle();
    this.#endIfSilentAndIdle();
  }
}
