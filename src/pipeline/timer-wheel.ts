import { now } from "./deadline.js";

const TICK_MS = 8;
const LONGEST_SLEEP_MS = 2 ** 31 - 1;

/** A pending callback. `cancel` is idempotent and cheap: it is called once for almost every call. */
export interface WheelEntry {
  cancel(): void;
}

/**
 * Timers in coarse buckets: adding and cancelling cost a few assignments, and one `setTimeout` at a time serves them all
 * (after Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987, with a map in place of the ring). A callback
 * runs at its time or up to one tick of 8 ms later, never before.
 *
 * With nothing pending the timer is not cleared but unreferenced: it keeps no process alive, and a caller that makes
 * one call after the other pays for no timer each time.
 */
export class TimerWheel {
  readonly #buckets = new Map<number, Bucket>();
  #timer: NodeJS.Timeout | undefined;
  #timerTick = Infinity;
  #pending = 0;
  #closed = false;

  /** Runs `callback` in `delayMs`. It must not throw. */
  add(delayMs: number, callback: () => void): WheelEntry {
    return this.addAt(now() + delayMs, callback);
  }

  /** Runs `callback` at `atMs` on the clock of `now()`. It must not throw. */
  addAt(atMs: number, callback: () => void): WheelEntry {
    const tick = Math.ceil(atMs / TICK_MS);
    let bucket = this.#buckets.get(tick);
    if (bucket === undefined) this.#buckets.set(tick, (bucket = new Bucket()));
    const entry = new Entry(this, bucket, callback);
    bucket.add(entry);
    if (this.#pending++ === 0 && !this.#closed) this.#timer?.ref();
    if (tick < this.#timerTick) this.#sleepUntil(tick);
    return entry;
  }

  get size(): number {
    return this.#pending;
  }

  /** Drops all entries without running them. Those that come later keep no process alive. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerTick = Infinity;
    // Emptied too, so that a cancellation that comes later finds nothing to count.
    for (const bucket of this.#buckets.values()) bucket.clear();
    this.#buckets.clear();
    this.#pending = 0;
  }

  /** @internal For entries. */
  remove(bucket: Bucket, entry: Entry): void {
    if (!bucket.delete(entry)) return;
    this.#pending--;
    this.#restIfEmpty();
  }

  #restIfEmpty(): void {
    if (this.#pending === 0) this.#timer?.unref();
  }

  #sleepUntil(tick: number): void {
    clearTimeout(this.#timer);
    this.#timerTick = tick;
    this.#timer = setTimeout(() => this.#fire(), Math.min(LONGEST_SLEEP_MS, Math.max(1, tick * TICK_MS - now() + 1)));
    if (this.#closed) this.#timer.unref();
  }

  /** Buckets stay in the map until they have run, so that `close` from within a callback reaches them. */
  #fire(): void {
    const current = Math.floor(now() / TICK_MS);
    this.#timer = undefined;
    this.#timerTick = Infinity;
    let next = Infinity;
    const due: number[] = [];
    for (const [tick, bucket] of this.#buckets) {
      if (tick <= current) due.push(tick);
      else if (bucket.isEmpty) this.#buckets.delete(tick);
      else next = Math.min(next, tick);
    }
    if (next !== Infinity) this.#sleepUntil(next);
    // More than one where the loop was held up: still in the order of their times.
    for (const tick of due.sort((a, b) => a - b)) this.#run(tick);
    this.#restIfEmpty();
  }

  #run(tick: number): void {
    const bucket = this.#buckets.get(tick);
    if (bucket === undefined) return;
    for (let entry = bucket.shift(); entry !== null; entry = bucket.shift()) {
      this.#pending--;
      entry.callback();
    }
    this.#buckets.delete(tick);
  }
}

/**
 * A list of entries that are linked by themselves. One that leaves lets go of its neighbours: garbage that has grown old
 * would keep its younger neighbour through the collections of young objects, that one the next, and so on.
 */
class Bucket {
  #first: Entry | null = null;
  #last: Entry | null = null;

  get isEmpty(): boolean {
    return this.#first === null;
  }

  add(entry: Entry): void {
    entry.previous = this.#last;
    if (this.#last === null) this.#first = entry;
    else this.#last.next = entry;
    this.#last = entry;
  }

  /** False where it was not there any more. */
  delete(entry: Entry): boolean {
    if (entry.gone) return false;
    entry.gone = true;
    if (entry.previous === null) this.#first = entry.next;
    else entry.previous.next = entry.next;
    if (entry.next === null) this.#last = entry.previous;
    else entry.next.previous = entry.previous;
    entry.previous = entry.next = null;
    return true;
  }

  /** Takes the first one out; null where there is none. */
  shift(): Entry | null {
    const first = this.#first;
    if (first !== null) this.delete(first);
    return first;
  }

  clear(): void {
    while (this.shift() !== null);
  }
}

class Entry implements WheelEntry {
  readonly callback: () => void;
  previous: Entry | null = null;
  next: Entry | null = null;
  gone = false;
  readonly #wheel: TimerWheel;
  readonly #bucket: Bucket;

  constructor(wheel: TimerWheel, bucket: Bucket, callback: () => void) {
    this.#wheel = wheel;
    this.#bucket = bucket;
    this.callback = callback;
  }

  cancel(): void {
    this.#wheel.remove(this.#bucket, this);
  }
}
