import { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** So many wait for each other at most: the other side works on these while this one makes more. */
const MOST_TOGETHER = 16;
/** The same in characters. Much longer texts are large objects to V8, whose memory is fetched from the system and given back each time. */
const MOST_CHARS_TOGETHER = 32_768;
const KEEP_ALIVE_MS = 30_000;

/** Lines leave at once, and the kernel notices a peer that is gone. */
export function setUpForLines(socket: Duplex): void {
  if (socket instanceof Socket) socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
}

/**
 * Lines on their way into a socket. The first one of a turn of the event loop is written at once where nothing has been
 * written in the turn before; the others together, at the end of the turn or when there are enough of them.
 */
export class LineWriter {
  readonly #socket: Duplex;
  readonly #onWritten: () => void;
  #lines: string[] = [];
  #chars = 0;
  #busy = false;

  /** `onWritten` is called whenever all lines up to now have been handed to the socket. */
  constructor(socket: Duplex, onWritten: () => void) {
    this.#socket = socket;
    this.#onWritten = onWritten;
  }

  /** What the other side has not taken yet, in bytes as far as they are known. */
  get backlog(): number {
    return this.#socket.writableLength + this.#chars;
  }

  write(line: string): void {
    if (this.#busy) {
      this.#lines.push(line);
      this.#chars += line.length;
      if (this.#lines.length >= MOST_TOGETHER || this.#chars >= MOST_CHARS_TOGETHER) this.#flush();
      return;
    }
    this.#busy = true;
    setImmediate(this.#endTurn);
    this.#hand(line);
  }

  /** Writes what waits, then `last`, and no more from this side. */
  end(last = ""): void {
    this.#flush();
    if (this.#isOpen) this.#socket.end(last);
  }

  readonly #endTurn = (): void => {
    this.#busy = this.#lines.length > 0;
    if (!this.#busy) return;
    setImmediate(this.#endTurn);
    this.#flush();
  };

  #flush(): void {
    if (this.#lines.length === 0) return;
    const text = this.#lines.length === 1 ? this.#lines[0]! : this.#lines.join("");
    this.#lines = [];
    this.#chars = 0;
    this.#hand(text);
  }

  #hand(text: string): void {
    if (!this.#isOpen) return;
    this.#socket.write(text);
    this.#onWritten();
  }

  get #isOpen(): boolean {
    return this.#socket.writable;
  }
}
