import { now } from "../pipeline/deadline.js";

/** So long may handlers that begin keep the event loop at a stretch. */
const SHARE_MS = 10;
/** Most of them at a stretch. */
const MOST_STARTS = 256;
/** Turns of the event loop in between: Node accepts one connection a turn. */
const TURNS_BETWEEN = 8;

/**
 * Which handler may begin when, where handlers keep the event loop busy. One turn of the loop would otherwise run those of
 * all requests that it finds, one after another: new callers would not get in, heartbeats would be late, and how long a
 * request has waited in its socket could not be seen.
 */
export class LoopShare {
  /** In order of arrival. */
  readonly #waiting = new Set<() => void>();
  #turnBeganAt: number | null = null;
  #sharing = false;

  /** When the turn began in which this is called, on the clock of `now()`: what is read in it may have been there by then. */
  turnBeganAt(): number {
    if (this.#turnBeganAt !== null) return this.#turnBeganAt;
    const beganAt = (this.#turnBeganAt = now());
    setImmediate(() => this.#endTurn(beganAt));
    return beganAt;
  }

  /** Resolves when a handler may begin: at once where nothing keeps the loop busy. */
  async free(): Promise<void> {
    if (!this.#sharing && now() - this.turnBeganAt() <= SHARE_MS) return;
    const turn = new Promise<void>((resolve) => this.#waiting.add(resolve));
    if (!this.#sharing) this.#letOthersIn(TURNS_BETWEEN);
    await turn;
  }

  /** After a long turn others come in first, though nobody waits: one long handler a turn keeps them out as well. */
  #endTurn(beganAt: number): void {
    this.#turnBeganAt = null;
    if (!this.#sharing && now() - beganAt > SHARE_MS) this.#letOthersIn(TURNS_BETWEEN);
  }

  #letOthersIn(turns: number): void {
    this.#sharing = true;
    setImmediate(() => (turns > 1 ? this.#letOthersIn(turns - 1) : this.#share()));
  }

  /** All in the next turn, each with what its handler does before it waits for something. */
  #share(): void {
    const end = now() + SHARE_MS;
    for (let starts = Math.min(MOST_STARTS, this.#waiting.size); starts > 0; starts--) {
      setImmediate(() => now() < end && this.#startNext());
    }
    setImmediate(() => {
      if (this.#waiting.size > 0 || now() >= end) this.#letOthersIn(TURNS_BETWEEN);
      else this.#sharing = false;
    });
  }

  #startNext(): void {
    for (const start of this.#waiting) {
      this.#waiting.delete(start);
      return start();
    }
  }
}
