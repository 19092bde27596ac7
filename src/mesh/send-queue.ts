import { now } from "../pipeline/deadline.js";

/** Weight of the newest request in the mean. */
const NEWEST = 0.05;

const ignore = (): void => undefined;

/**
 * Begins a request, which must not throw. False where it is not worth it any more; else the function given is to be called
 * once, when the request is over.
 */
export type Begin = (over: () => void) => boolean;

interface Entry {
  readonly begin: Begin;
}

/**
 * Requests to one peer: so many at a time, the others in the order in which they came. From the time that requests take
 * it knows how long the next one would wait.
 */
export class SendQueue {
  readonly #atOnce: number;
  readonly #onIdle: () => void;
  readonly #waiting = new Set<Entry>();
  #underWay = 0;
  #beginning = false;
  /** How long requests take once they have begun, in ms; null before the first has ended. */
  #meanMs: number | null = null;

  /** `onIdle` is called whenever the last request has gone. */
  constructor(atOnce: number, onIdle: () => void) {
    this.#atOnce = atOnce;
    this.#onIdle = onIdle;
  }

  /** Requests under way and waiting. */
  get size(): number {
    return this.#underWay + this.#waiting.size;
  }

  /** How long a request that is added now will wait for its turn, as far as is known. */
  get expectedWaitMs(): number {
    return (this.#waiting.size / this.#atOnce) * (this.#meanMs ?? 0);
  }

  /** Calls `begin` when its turn has come. Returns what takes it back until then. */
  add(begin: Begin): () => void {
    const entry = { begin };
    this.#waiting.add(entry);
    this.#beginWaiting();
    return this.#waiting.has(entry) ? () => this.#takeBack(entry) : ignore;
  }

  #takeBack(entry: Entry): void {
    if (this.#waiting.delete(entry)) this.#noteIfIdle();
  }

  /** A loop, since a request that fails as soon as it begins is over from within. */
  #beginWaiting(): void {
    if (this.#beginning) return;
    this.#beginning = true;
    try {
      for (const entry of this.#waiting) {
        if (this.#underWay >= this.#atOnce) break;
        this.#waiting.delete(entry);
        this.#begin(entry);
      }
    } finally {
      this.#beginning = false;
    }
  }

  #begin({ begin }: Entry): void {
    const beganAt = now();
    this.#underWay++;
    const begun = begin(() => {
      this.#underWay--;
      this.#learn(now() - beganAt);
      this.#beginWaiting();
      this.#noteIfIdle();
    });
    if (begun) return;
    this.#underWay--;
    this.#noteIfIdle();
  }

  #noteIfIdle(): void {
    if (this.size === 0) this.#onIdle();
  }

  #learn(tookMs: number): void {
    this.#meanMs = this.#meanMs === null ? tookMs : this.#meanMs + (tookMs - this.#meanMs) * NEWEST;
  }
}
