import { now } from "./deadline.js";

const TICK_MS = 8;
const LONGEST_SLEEP_MS = 2 ** 31 - 1;

/** A pending callback. `cancel` is idempotent and cheap: it is called once for almost every call. */
export interface WheelEntry {
  cancel(): void;
}

/**
 * Timers in coarse buckets: adding and cancelling cost a set operation, and one `setTimeout` at a time serves them all
 * (after Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987, with a map in place of the ring). A callback
 * runs at its time or up to one tick of 8 ms later, never before.
 */
export class TimerWheel {
  readonly #buckets = new Map<number, Set<() => void>>();
  #timer: NodeJS.Timeout | undefined;
  #timerTick = Infinity;
  #pending = 0;

  /** Runs `callback` in `delayMs`. It must not throw. */
  add(delayMs: number, callback: () => void): WheelEntry {
    const tick = Math.ceil((now() + delayMs) / TICK_MS);
    let bucket = this.#buckets.get(tick);
    if (bucket === undefined) this.#buckets.set(tick, (bucket = new Set()));
    // A wrapper of its own, so that one function added twice is two entries.
    const run = (): void => callback();
    bucket.add(run);
    this.#pending++;
    if (tick < this.#timerTick) this.#sleepUntil(tick);
    return { cancel: () => this.#remove(bucket, run) };
  }

  get size(): number {
    return this.#pending;
  }

  /** Drops all entries without running them. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerTick = Infinity;
    this.#buckets.clear();
    this.#pending = 0;
  }

  #remove(bucket: Set<() => void>, run: () => void): void {
    if (!bucket.delete(run)) return;
    this.#pending--;
    if (this.#pending === 0) this.close();
  }

  #sleepUntil(tick: number): void {
    clearTimeout(this.#timer);
    this.#timerTick = tick;
    this.#timer = setTimeout(() => this.#fire(), Math.min(LONGEST_SLEEP_MS, Math.max(1, tick * TICK_MS - now() + 1)));
  }

  #fire(): void {
    const current = Math.floor(now() / TICK_MS);
    let next = Infinity;
    const due: Set<() => void>[] = [];
    for (const [tick, bucket] of this.#buckets) {
      if (tick <= current) due.push(bucket);
      else if (bucket.size === 0) this.#buckets.delete(tick);
      else next = Math.min(next, tick);
      if (tick <= current) this.#buckets.delete(tick);
    }
    this.#timerTick = Infinity;
    if (next !== Infinity) this.#sleepUntil(next);
    for (const bucket of due) this.#run(bucket);
  }

  #run(bucket: Set<() => void>): void {
    for (const run of bucket) {
      bucket.delete(run);
      this.#pending--;
      run();
    }
  }
}
