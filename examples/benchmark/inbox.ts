import { clock, summary, type Latencies } from "./measure.js";
import type { Message, Running } from "./roles.js";

export interface Drained {
  /** From the first message to the last. */
  readonly ms: number;
  /** When the last one came, on the common clock. */
  readonly at: number;
  readonly latencies: Latencies;
}

export interface Taken {
  readonly i: number;
  readonly ms: number;
}

/** What one process receives. Where messages are expected, each must come once, and nothing else. */
export class Inbox {
  readonly #consume: NonNullable<Running["consume"]>;
  #close: (() => Promise<unknown>) | undefined;
  #expected: { readonly take: (message: Message) => void; readonly all: Promise<Drained> } | undefined;
  #taken: Taken[] = [];
  #stray: number | undefined;

  constructor(consume: NonNullable<Running["consume"]>) {
    this.#consume = consume;
  }

  async open(): Promise<void> {
    this.#close = await this.#consume((message) => {
      if (this.#expected !== undefined) this.#expected.take(message);
      else this.#taken.push({ i: message.i, ms: clock() - (message.at ?? NaN) });
    });
  }

  /** Rejects where a message came after the last that was expected. */
  async close(): Promise<void> {
    await this.#close?.();
    this.#close = undefined;
    this.disarm();
  }

  /** Messages `from` to `to`, within `limitMs`; the latencies are those from `measuredFrom` on. */
  arm(from: number, to: number, limitMs: number, measuredFrom = from): void {
    this.#arm(to - from + 1, limitMs, (i) => i >= from && i <= to, measuredFrom, (i) => (this.#stray ??= i));
  }

  /** The first `count` of those that wait; what comes after them is not looked at. */
  armAny(count: number, limitMs: number): void {
    this.#arm(count, limitMs, () => true);
  }

  async arrived(): Promise<Drained> {
    if (this.#expected === undefined) throw new Error("nothing is expected");
    return this.#expected.all;
  }

  /** Throws where a message came after the last that was expected. */
  disarm(): void {
    const stray = this.#stray;
    this.#expected = this.#stray = undefined;
    if (stray !== undefined) throw new Error(`message ${stray} came after all that were to come`);
  }

  /** What came while nothing in particular was expected. */
  collect(): Taken[] {
    const taken = this.#taken;
    this.#taken = [];
    return taken;
  }

  #arm(count: number, limitMs: number, belongs: (i: number) => boolean, measuredFrom = 0, beyond: (i: number) => void = () => undefined): void {
    const seen = new Set<number>();
    const latencies: number[] = [];
    let first = 0;
    let take: (message: Message) => void = () => undefined;
    const all = new Promise<Drained>((resolve, reject) => {
      const limit = setTimeout(() => reject(new Error(`${seen.size} of ${count} messages came within ${limitMs} ms`)), limitMs);
      take = ({ i, at }) => {
        if (seen.size === count) return beyond(i);
        const now = clock();
        if (seen.size === 0) first = now;
        if (!belongs(i) || seen.has(i)) return reject(new Error(`message ${i} came twice, or was not to come`));
        seen.add(i);
        if (at !== undefined && i >= measuredFrom) latencies.push(now - at);
        if (seen.size < count) return;
        clearTimeout(limit);
        resolve({ ms: now - first, at: now, latencies: summary(latencies) });
      };
    });
    // Read by `arrived`, which may come later than the failure.
    all.catch(() => undefined);
    this.#expected = { take, all };
  }
}
