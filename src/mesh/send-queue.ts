import { now } from "../pipeline/deadline.js";

/** Weight of the newest request in the mean. */
const NEWEST = 0.05;
/** An answer within this share of a request's time says that more can be under way. */
const SOON = 0.25;
/** So many more at a time as an answer allows that came in time, if not soon. */
const SLOWLY = 0.1;
/** So many may always be under way, however many have come too late. */
export const LEAST = 8;

const ignore = (): void => undefined;

/** How a request ended: with an answer, with none when its time was over, or otherwise. */
export type Ending = "answered" | "late" | "other";

/**
 * Begins a request, which must not throw. False where it is not worth it any more; else the function given is to be called
 * once, when the request is over.
 */
export type Begin = (over: (how?: Ending) => void) => boolean;

export interface SendQueueOptions {
  /** Requests under way at a time, at first. */
  readonly atOnce: number;
  /**
   * Up to as many where requests that wait see others answered in time, and fewer than at first where they are not answered at all, so that it
   * is the peer that sets the pace. Default: `atOnce`, whatever happens.
   */
  readonly most?: number;
  /** Called whenever the last request has gone. */
  readonly onIdle: () => void;
}

interface Entry {
  readonly begin: Begin;
  /** Ms in which it wants to be answered. */
  readonly limitMs: number;
}

/**
 * Requests to one peer: so many at a time, the others in the order in which they came. From the time that requests take
 * it knows how long the next one would wait.
 */
export class SendQueue {
  readonly #options: SendQueueOptions;
  readonly #adapts: boolean;
  readonly #waiting = new Set<Entry>();
  /** With a fraction, which begins nothing. */
  #atOnce: number;
  #underWay = 0;
  #beginning = false;
  /** How long requests take once they have begun, in ms; null before the first has ended. */
  #meanMs: number | null = null;

  constructor(options: SendQueueOptions) {
    this.#options = options;
    this.#atOnce = options.atOnce;
    this.#adapts = options.most !== undefined && options.most > options.atOnce;
  }

  /** Requests under way and waiting. */
  get size(): number {
    return this.#underWay + this.#waiting.size;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** A request that is added now begins at once. */
  get hasRoom(): boolean {
    return this.#underWay + 1 <= this.#atOnce && this.#waiting.size === 0 && !this.#beginning;
  }

  /** How long a request that is added now will wait for its turn, as far as is known. */
  get expectedWaitMs(): number {
    return (this.#waiting.size / this.#atOnce) * (this.#meanMs ?? 0);
  }

  /** Calls `begin` when its turn has come. Returns what takes it back until then. */
  add(begin: Begin, limitMs = Infinity): () => void {
    const entry: Entry = { begin, limitMs };
    // In most cases, without the set: tables that sets leave behind keep each other from collection (see IdTable).
    if (this.hasRoom) {
      this.#inTurn(() => this.#begin(entry));
      this.#beginWaiting();
      return ignore;
    }
    this.#waiting.add(entry);
    return () => this.#takeBack(entry);
  }

  #takeBack(entry: Entry): void {
    if (this.#waiting.delete(entry)) this.#noteIfIdle();
  }

  /** A loop, since a request that fails as soon as it begins is over from within. */
  #beginWaiting(): void {
    if (this.#beginning || this.#waiting.size === 0) return;
    this.#inTurn(() => {
      for (const entry of this.#waiting) {
        if (this.#underWay + 1 > this.#atOnce) break;
        this.#waiting.delete(entry);
        this.#begin(entry);
      }
    });
  }

  #inTurn(begin: () => void): void {
    this.#beginning = true;
    try {
      begin();
    } finally {
      this.#beginning = false;
    }
  }

  #begin({ begin, limitMs }: Entry): void {
    const beganAt = now();
    this.#underWay++;
    const begun = begin((how = "other") => {
      const tookMs = now() - beganAt;
      if (this.#adapts) this.#adapt(how, tookMs < limitMs * SOON);
      this.#underWay--;
      this.#learn(tookMs);
      this.#beginWaiting();
      this.#noteIfIdle();
    });
    if (begun) return;
    this.#underWay--;
    this.#noteIfIdle();
  }

  /** By one at a time at most: it is the rate of answers that sets how fast. */
  #adapt(how: Ending, soon: boolean): void {
    if (how === "late") this.#atOnce = Math.max(LEAST, this.#atOnce - 1);
    else if (how === "answered" && this.#waiting.size > 0) this.#atOnce = Math.min(this.#options.most!, this.#atOnce + (soon ? 1 : SLOWLY));
  }

  #noteIfIdle(): void {
    if (this.size === 0) this.#options.onIdle();
  }

  #learn(tookMs: number): void {
    this.#meanMs = this.#meanMs === null ? tookMs : this.#meanMs + (tookMs - this.#meanMs) * NEWEST;
  }
}
