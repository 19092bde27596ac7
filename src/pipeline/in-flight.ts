import { now } from "./deadline.js";

/** Something under way. Linked into the list by itself, so that a start and an end cost a few assignments. */
export class Run {
  readonly name: string;
  readonly #beganAt: number;
  /** @internal */ sequence = 0;
  /** @internal */ previous: Run | null = null;
  /** @internal */ next: Run | null = null;

  /** `beganAt`: for who has read that clock already. */
  constructor(name: string, beganAt = now()) {
    this.name = name;
    this.#beganAt = beganAt;
  }

  /** For how long, in ms. */
  get ageMs(): number {
    return now() - this.#beganAt;
  }
}

interface Waiter {
  readonly upTo: number;
  readonly resolve: () => void;
}

/** What is under way, oldest first. */
export class InFlight {
  #oldest: Run | null = null;
  #newest: Run | null = null;
  #size = 0;
  #sequence = 0;
  #waiters: Waiter[] = [];

  get size(): number {
    return this.#size;
  }

  add(run: Run): void {
    run.sequence = ++this.#sequence;
    run.previous = this.#newest;
    if (this.#newest === null) this.#oldest = run;
    else this.#newest.next = run;
    this.#newest = run;
    this.#size++;
  }

  /** Must be called exactly once for each run that was added. */
  remove(run: Run): void {
    if (run.previous === null) this.#oldest = run.next;
    else run.previous.next = run.next;
    if (run.next === null) this.#newest = run.previous;
    else run.next.previous = run.previous;
    this.#size--;
    if (this.#waiters.length > 0) this.#wake();
  }

  /** The oldest first, `most` of them. */
  oldest(most: number): Run[] {
    const runs: Run[] = [];
    for (let run = this.#oldest; run !== null && runs.length < most; run = run.next) runs.push(run);
    return runs;
  }

  /** Resolves when nothing that has begun up to now is under way any more. */
  endOfCurrent(): Promise<void> {
    return this.#end(this.#sequence);
  }

  /** Resolves when nothing at all is under way. */
  idle(): Promise<void> {
    return this.#end(Infinity);
  }

  #end(upTo: number): Promise<void> {
    if (this.#hasEnded(upTo)) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ upTo, resolve }));
  }

  #hasEnded(upTo: number): boolean {
    return this.#oldest === null || this.#oldest.sequence > upTo;
  }

  #wake(): void {
    const ended = this.#waiters.filter(({ upTo }) => this.#hasEnded(upTo));
    this.#waiters = this.#waiters.filter((waiter) => !ended.includes(waiter));
    for (const waiter of ended) waiter.resolve();
  }
}
