const NEWLINE = 10;
/** Shown of a line that is too long. */
const HEAD_BYTES = 64;

export interface LineReaderOptions {
  /** Longest line, in bytes, that is put together from several chunks. */
  readonly maxBytes: number;
  /** A whole line, without its newline. */
  readonly onLine: (line: string) => void;
  /** A line that is longer, of which no more is read: its beginning. */
  readonly onTooLong: (head: string) => void;
}

/**
 * Lines of UTF-8 in what comes in chunks. What is whole is decoded at once, up to the last newline of a chunk, which is never
 * inside a character. The rest is kept as it came.
 */
export class LineReader {
  readonly #options: LineReaderOptions;
  #rest: Buffer[] = [];
  #restBytes = 0;
  #stopped = false;
  /** Counts the lines that came in more than one chunk. */
  #opened = 0;

  constructor(options: LineReaderOptions) {
    this.#options = options;
  }

  /** A number of its own for the line that has begun and is not whole; 0 where there is none. */
  get openLine(): number {
    return this.#restBytes === 0 ? 0 : this.#opened;
  }

  push(chunk: Buffer): void {
    if (this.#stopped) return;
    const first = chunk.indexOf(NEWLINE);
    if (first === -1) return this.#keep(chunk);
    if (this.#restBytes + first > this.#options.maxBytes) return this.#refuse(chunk);
    const from = this.#restBytes === 0 ? 0 : this.#endLine(chunk, first);
    const end = chunk.lastIndexOf(NEWLINE);
    if (end >= from && !this.#stopped) this.#splitUp(chunk.toString("utf8", from, end));
    if (end + 1 < chunk.length && !this.#stopped) this.#keep(chunk.subarray(end + 1));
  }

  /** No more lines are read. */
  stop(): void {
    this.#stopped = true;
    this.#rest = [];
    this.#restBytes = 0;
  }

  /** The line that has begun before `chunk`, and ends there at `end`. Returns where the next one begins. */
  #endLine(chunk: Buffer, end: number): number {
    const line = Buffer.concat([...this.#rest, chunk.subarray(0, end)]).toString("utf8");
    this.#rest = [];
    this.#restBytes = 0;
    this.#options.onLine(line);
    return end + 1;
  }

  #splitUp(text: string): void {
    const { onLine } = this.#options;
    let from = 0;
    for (let at = text.indexOf("\n"); at !== -1 && !this.#stopped; at = text.indexOf("\n", from)) {
      onLine(text.slice(from, at));
      from = at + 1;
    }
    if (!this.#stopped) onLine(from === 0 ? text : text.slice(from));
  }

  #keep(chunk: Buffer): void {
    if (this.#restBytes === 0) this.#opened++;
    this.#rest.push(chunk);
    this.#restBytes += chunk.byteLength;
    if (this.#restBytes > this.#options.maxBytes) this.#refuse();
  }

  #refuse(chunk?: Buffer): void {
    if (this.#stopped) return;
    const parts = chunk === undefined ? this.#rest : [...this.#rest, chunk];
    const head = Buffer.concat(parts).toString("latin1", 0, HEAD_BYTES);
    this.stop();
    this.#options.onTooLong(head);
  }
}
