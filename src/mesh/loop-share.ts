import { now } from "../pipeline/deadline.js";
import type { CancellationView } from "../contract/registration.js";

/** So long may handlers that begin keep the event loop at a stretch, and all else after them. */
const SHARE_MS = 10;
/** Most of them at a stretch. */
const MOST_STARTS = 256;
/** Weight of the newest share in the mean. */
const NEWEST = 0.2;
/** So many shares in a row must have been too short for all that waited: one may have been, because the machine did something else. */
const TELLING_SHARES = 3;
/** Turns of the event loop in between, as far as they fit into a share: Node accepts one connection a turn. */
const TURNS_BETWEEN = 8;

/**
 * Which handler may begin when, where the event loop is busy. One turn of the loop would otherwise run those of all
 * requests that it finds, one after another: new callers would not get in, heartbeats would be late, and how long a
 * request has waited in its socket could not be seen.
 */
export class LoopShare {
  /** In order of arrival. */
  readonly #waiting = new Set<() => void>();
  #turnBeganAt: number | null = null;
  #sharing = false;
  /** Handlers that have begun since `#countedFrom`. */
  #begun = 0;
  #countedFrom = 0;
  /** From one handler's turn to the next while they wait, in ms; null where no share has left any waiting since the last time that none waited. */
  #meanMs: number | null = null;
  #sharesShort = 0;

  /** When the turn began in which this is called, on the clock of `now()`: what is read in it may have been there by then. */
  turnBeganAt(): number {
    if (this.#turnBeganAt !== null) return this.#turnBeganAt;
    const beganAt = (this.#turnBeganAt = now());
    setImmediate(() => this.#endTurn(beganAt));
    return beganAt;
  }

  /** A handler may begin at once: nothing keeps the loop busy. */
  get isFree(): boolean {
    return !this.#sharing && now() - this.turnBeganAt() <= SHARE_MS;
  }

  /** How long a handler that comes now would wait for its turn, as far as is known. */
  get expectedWaitMs(): number {
    return this.#sharesShort < TELLING_SHARES ? 0 : this.#waiting.size * this.#meanMs!;
  }

  /** Resolves when the turn of a handler has come that waits from now on, or `cancellation` has aborted. */
  async turn(cancellation: CancellationView): Promise<void> {
    let unlink = (): void => undefined;
    await new Promise<void>((resolve) => {
      this.#waiting.add(resolve);
      unlink = cancellation.onAbort(() => {
        this.#waiting.delete(resolve);
        resolve();
      });
      if (!this.#sharing) this.#letOthersIn();
    });
    unlink();
  }

  /** After a long turn others come in first, though nobody waits: one long handler a turn keeps them out as well. */
  #endTurn(beganAt: number): void {
    this.#turnBeganAt = null;
    if (!this.#sharing && now() - beganAt > SHARE_MS) this.#letOthersIn();
  }

  #letOthersIn(): void {
    if (!this.#sharing) this.#countedFrom = now();
    this.#sharing = true;
    const end = now() + SHARE_MS;
    let turns = 0;
    const next = (): unknown => (++turns >= TURNS_BETWEEN || now() >= end ? this.#share() : setImmediate(next));
    setImmediate(next);
  }

  /**
   * All in the next turn, each with what its handler does before it waits for something. The first one begins however
   * long that turn has taken already: no share passes in vain, whatever else the loop is busy with.
   */
  #share(): void {
    let end: number | undefined;
    const start = (): void => {
      if (end === undefined || now() < end) this.#startNext();
      end ??= now() + SHARE_MS;
    };
    for (let starts = Math.min(MOST_STARTS, this.#waiting.size); starts > 0; starts--) setImmediate(start);
    setImmediate(() => {
      if (this.#waiting.size > 0) this.#learn();
      else this.#forget();
      if (this.#waiting.size > 0 || (end !== undefined && now() >= end)) this.#letOthersIn();
      else this.#sharing = false;
    });
  }

  #learn(): void {
    const at = now();
    if (this.#begun > 0) {
      const tookMs = (at - this.#countedFrom) / this.#begun;
      this.#meanMs = this.#meanMs === null ? tookMs : this.#meanMs + (tookMs - this.#meanMs) * NEWEST;
      this.#sharesShort++;
    }
    this.#countedFrom = at;
    this.#begun = 0;
  }

  /** What a share took that was long enough for all tells how long it lasts, not how many would fit into it. */
  #forget(): void {
    this.#meanMs = null;
    this.#sharesShort = this.#begun = 0;
    this.#countedFrom = now();
  }

  #startNext(): void {
    for (const start of this.#waiting) {
      this.#begun++;
      this.#waiting.delete(start);
      return start();
    }
  }
}
