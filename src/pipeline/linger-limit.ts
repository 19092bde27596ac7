import type { ServerResponse } from "node:http";

/** How long a client that is still sending may take to read a refusal before its connection is cut. */
export const LINGER_MS = 500;
export const MOST_AT_ONCE = 256;

/** Calls `run` in `ms`, unless what it returns is called before. */
export type Timer = (ms: number, run: () => void) => () => void;

/** Bounds how many refused clients may linger at the same time: strangers decide how many there are. */
export class LingerLimit {
  readonly #most: number;
  #count = 0;

  constructor(most = MOST_AT_ONCE) {
    this.#most = most;
  }

  /**
   * Ends a response whose whole answer has been written. To end it at once, upon which Node closes, with bytes unread, would
   * reset the connection and take the answer with it: so the end waits until the client has closed or the time is up.
   * Where no more may linger, the connection is cut at once.
   */
  end(response: ServerResponse, timer: Timer): void {
    const left = this.enter();
    if (left === null) return void response.end();
    const cancel = timer(LINGER_MS, () => response.end());
    response.once("close", () => {
      cancel();
      left();
    });
  }

  /** What to call, once, when the client has gone; null where there is no room, and the connection is to be cut at once. */
  enter(): (() => void) | null {
    if (this.#count >= this.#most) return null;
    this.#count++;
    return () => void this.#count--;
  }
}
