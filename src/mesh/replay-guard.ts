import { now } from "../pipeline/deadline.js";
import { ReplayWindow } from "./replay-window.js";

export interface ReplayGuardOptions {
  /** How long a caller is remembered after its last request: longer than any timestamp stays acceptable. */
  readonly keepMs: number;
  /** Default 10000. */
  readonly maxCallers?: number;
  /** Monotonic ms. Default: the process's. */
  readonly clock?: () => number;
}

/** `full`: as many callers as can be remembered have called within `keepMs`. */
export type ReplayVerdict = "new" | "seen" | "full";

interface KnownCaller {
  readonly window: ReplayWindow;
  usedAt: number;
}

export const MOST_CALLERS = 10_000;
/** Looking for callers to forget costs a pass over all of them. */
const FORGET_EVERY_MS = 1_000;

/** A replay window for each caller. To be asked about verified requests only: others must not make or move a window. */
export class ReplayGuard {
  readonly #callers = new Map<string, KnownCaller>();
  readonly #keepMs: number;
  readonly #maxCallers: number;
  readonly #clock: () => number;
  #forgotAt = -Infinity;

  constructor({ keepMs, maxCallers = MOST_CALLERS, clock = now }: ReplayGuardOptions) {
    this.#keepMs = keepMs;
    this.#maxCallers = maxCallers;
    this.#clock = clock;
  }

  get size(): number {
    return this.#callers.size;
  }

  take(caller: string, nonce: number): ReplayVerdict {
    const at = this.#clock();
    const known = this.#callers.get(caller) ?? this.#meet(caller, at);
    if (known === null) return "full";
    if (!known.window.take(nonce)) return "seen";
    known.usedAt = at;
    return "new";
  }

  #meet(caller: string, at: number): KnownCaller | null {
    this.#forgetIdle(at);
    if (this.#callers.size >= this.#maxCallers) return null;
    const known = { window: new ReplayWindow(), usedAt: at };
    this.#callers.set(caller, known);
    return known;
  }

  #forgetIdle(at: number): void {
    if (at - this.#forgotAt < FORGET_EVERY_MS) return;
    this.#forgotAt = at;
    for (const [caller, { usedAt }] of this.#callers) if (at - usedAt > this.#keepMs) this.#callers.delete(caller);
  }
}
