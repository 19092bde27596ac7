import type { Duplex } from "node:stream";
import { MeshCancelledError } from "../errors.js";
import { Cancellation } from "../pipeline/cancellation.js";
import type { TimerWheel, WheelEntry } from "../pipeline/timer-wheel.js";
import type { HostEnv } from "../contract/registration.js";
import { IdTable } from "./id-table.js";
import type { Arrival, RpcDesk } from "./rpc-desk.js";
import type { RpcAnswer } from "./rpc-response.js";
import { answerLine, goodbyeLine, idOfBeginning, LONGEST_HEAD, LONGEST_ON_WIRE, parseCallerLine, PING_LINE, type CallerFrame } from "./wire-frames.js";
import { LineReader } from "./wire-lines.js";
import { LineWriter } from "./wire-writer.js";

export interface CalleeWireOptions {
  readonly desk: RpcDesk;
  readonly env: HostEnv;
  readonly wheel: TimerWheel;
  /** Time in which a line that has begun must be whole. */
  readonly lineTimeoutMs: number;
  /** Who has made the wire; told to handlers whose request does not say so. */
  readonly callerNodeId: string | null;
}

/** From here on no requests are read, until the caller has taken its answers. */
export const MOST_UNREAD_BYTES = 1024 ** 2;
/** How long the caller may take to close a wire from which this side has said goodbye. */
const GOODBYE_MS = 500;

type WireRequest = Extract<CallerFrame, { kind: "request" }>;

/** The end of a wire at which requests come in. Answers go out as they are ready. */
export class CalleeWire {
  readonly #socket: Duplex;
  readonly #options: CalleeWireOptions;
  readonly #reader: LineReader;
  readonly #writer: LineWriter;
  readonly #running = new IdTable<Cancellation>();
  #lastId = 0;
  #closing = false;
  /** The line whose time is limited, and its limit. */
  #watched = 0;
  #limit: WheelEntry | undefined;

  constructor(socket: Duplex, options: CalleeWireOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#reader = new LineReader({
      maxBytes: LONGEST_ON_WIRE + LONGEST_HEAD,
      onLine: (line) => this.#onLine(line),
      onTooLong: (head) => this.#onTooLong(head),
    });
    this.#writer = new LineWriter(socket, () => this.#waitForReader());
  }

  /** `head`: what has come with the upgrade. */
  start(head: Buffer): void {
    this.#socket.on("data", (chunk: Buffer) => this.#onData(chunk)).once("end", () => this.#onEnd()).once("close", () => this.#onGone());
    if (head.byteLength > 0) this.#onData(head);
  }

  /** Tells the caller which request was the last one, and takes no more. Answers that are not written yet are lost. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#stopReading();
    this.#writer.end(goodbyeLine(this.#lastId));
    // It goes on taking in what comes, and dropping it: a connection that is closed with bytes unread may lose the goodbye.
    const timer = setTimeout(() => this.#socket.destroy(), GOODBYE_MS);
    this.#socket.once("close", () => clearTimeout(timer)).resume();
  }

  #onData(chunk: Buffer): void {
    this.#reader.push(chunk);
    this.#watchLine();
  }

  #onLine(line: string): void {
    const frame = parseCallerLine(line);
    if (frame === null) return this.close();
    if (frame.kind === "ping") return this.#writer.write(PING_LINE);
    if (frame.kind === "cancel") return this.#cancel(frame.id);
    if (frame.id <= this.#lastId) return this.close();
    this.#lastId = frame.id;
    this.#take(frame);
  }

  #take({ id, budgetMs, body }: WireRequest): void {
    const { desk, callerNodeId } = this.#options;
    const arrival: Arrival = { at: desk.turnBeganAt(), budgetMs, callerNodeId, traceparent: undefined };
    const refusal = desk.refusal(budgetMs, Buffer.byteLength(body));
    if (refusal !== null) return this.#answer(id, refusal);
    void desk.during(() => this.#run(id, body, arrival));
  }

  async #run(id: number, body: string, arrival: Arrival): Promise<void> {
    const { desk, env } = this.#options;
    const root = env.dispatcher.rootScope({ requestId: "" });
    const cancellation = new Cancellation(root.cancellation);
    this.#running.add(id, cancellation);
    const answer = await desk.answer(body, arrival, { ...root, cancellation }, env);
    cancellation.dispose();
    if (this.#running.take(id) !== undefined) this.#answer(id, answer);
  }

  #answer(id: number, { status, body }: RpcAnswer): void {
    if (!this.#closing) this.#writer.write(answerLine(id, status, body));
  }

  /** Of a request that has been answered already, its cancellation has come too late. */
  #cancel(id: number): void {
    this.#running.take(id)?.abort(callerGone());
  }

  /** No caller sends such a line: nothing after it can be trusted to be one. */
  #onTooLong(head: string): void {
    const id = idOfBeginning(head);
    if (id !== null && id > this.#lastId) this.#answer((this.#lastId = id), this.#options.desk.tooLarge());
    this.close();
  }

  /** The caller sends no more, and so waits for nothing. */
  #onEnd(): void {
    this.#stopReading();
    this.#abandon();
    this.#writer.end();
  }

  #onGone(): void {
    this.#stopReading();
    this.#abandon();
  }

  #abandon(): void {
    for (const [, cancellation] of this.#running.takeAll()) cancellation.abort(callerGone());
  }

  #stopReading(): void {
    this.#reader.stop();
    this.#watchLine();
  }

  /** Answers that nobody reads must not pile up: it is left to the caller when it goes on. */
  #waitForReader(): void {
    const socket = this.#socket;
    if (socket.writableLength <= MOST_UNREAD_BYTES || socket.isPaused()) return;
    socket.pause();
    this.#limitLine(0);
    socket.once("drain", () => {
      socket.resume();
      this.#watchLine();
    });
  }

  #watchLine(): void {
    const line = this.#socket.isPaused() ? 0 : this.#reader.openLine;
    if (line !== this.#watched) this.#limitLine(line);
  }

  #limitLine(line: number): void {
    this.#limit?.cancel();
    this.#watched = line;
    this.#limit = line === 0 ? undefined : this.#options.wheel.add(this.#options.lineTimeoutMs, () => this.#onSlowLine(line));
  }

  /** Where this node has been busy all the time, the rest may be here: one turn of the event loop brings it in. */
  #onSlowLine(line: number): void {
    setImmediate(() => {
      if (this.#watched === line) this.close();
    });
  }
}

const callerGone = (): MeshCancelledError => new MeshCancelledError("the caller has gone");
