import { now } from "../pipeline/deadline.js";

/** Over so long, at least, the pace of a peer is measured: answers come in bursts. */
const WINDOW_MS = 100;
/** Weight of the newest window. */
const NEWEST = 0.3;

const ignore = (): void => undefined;

/**
 * Requests to one peer: so many at a time, the others in the order in which they came. While some wait it learns how
 * fast the peer takes them off, and so how long the next one would wait.
 */
export class SendQueue {
  readonly #atOnce: number;
  readonly #waiting = new Set<() => void>();
  #underWay = 0;
  #starting = false;
  /** Time from one start out of the queue to the next, in ms; null until it has been measured in the jam that is on. */
  #paceMs: number | null = null;
  #windowStart = 0;
  #ended = 0;

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /** Requests under way and waiting. */
  get size(): number {
    return this.#underWay + this.#waiting.size;
  }

  /** How long a request that is added now will wait for its turn, as far as is known. */
  get expectedWaitMs(): number {
    return this.#waiting.size * (this.#paceMs ?? 0);
  }

  /** Calls `start`, which must not throw, when its turn has come; then `done` must be called once. Returns what takes it back until then. */
  add(start: () => void): () => void {
    if (this.#underWay < this.#atOnce) {
      this.#underWay++;
      start();
      return ignore;
    }
    if (this.#waiting.size === 0) this.#beginToMeasure();
    this.#waiting.add(start);
    return () => void this.#waiting.delete(start);
  }

  /** A request that was started is over. */
  done(): void {
    this.#underWay--;
    if (this.#waiting.size === 0) return;
    this.#measure();
    this.#startWaiting();
  }

  /** A loop, since a request that fails as soon as it starts calls `done` from within. */
  #startWaiting(): void {
    if (this.#starting) return;
    this.#starting = true;
    for (const start of this.#waiting) {
      if (this.#underWay >= this.#atOnce) break;
      this.#waiting.delete(start);
      this.#underWay++;
      start();
    }
    this.#starting = false;
  }

  /** What was learned in one jam says nothing of the next. */
  #beginToMeasure(): void {
    this.#paceMs = null;
    this.#windowStart = now();
    this.#ended = 0;
  }

  #measure(): void {
    this.#ended++;
    const elapsed = now() - this.#windowStart;
    if (elapsed < WINDOW_MS) return;
    const paceMs = elapsed / this.#ended;
    this.#paceMs = this.#paceMs === null ? paceMs : this.#paceMs + (paceMs - this.#paceMs) * NEWEST;
    this.#windowStart += elapsed;
    this.#ended = 0;
  }
}
