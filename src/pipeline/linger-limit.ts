/** How long a client that is still sending may take to read a refusal before its connection is cut. */
const LINGER_MS = 500;
const MOST_AT_ONCE = 256;

/** Bounds how many refused clients may linger at the same time: strangers decide how many there are. */
export class LingerLimit {
  readonly ms = LINGER_MS;
  readonly #most: number;
  #count = 0;

  constructor(most = MOST_AT_ONCE) {
    this.#most = most;
  }

  /** What to call, once, when the client has gone; null where there is no room, and the connection is to be cut at once. */
  enter(): (() => void) | null {
    if (this.#count >= this.#most) return null;
    this.#count++;
    return () => void this.#count--;
  }
}
