// Not the global, which is found by a getter each time.
import { performance } from "node:perf_hooks";
import type { DeadlineView } from "../contract/registration.js";

/** Monotonic ms: the only clock that deadlines know. */
export const now = (): number => performance.now();

export class Deadline implements DeadlineView {
  readonly budgetMs: number;
  /** On the clock of `now()`. */
  readonly at: number;

  constructor(budgetMs: number, at: number = now() + budgetMs) {
    this.budgetMs = budgetMs;
    this.at = at;
  }

  /** The sooner of `parent`'s end and `budgetMs` from now. The budget that messages name is in whole ms. */
  static within(parent: DeadlineView | null, budgetMs: number): Deadline {
    const from = now();
    const remaining = parent === null ? budgetMs : Math.min(budgetMs, Math.max(0, parent.at - from));
    return new Deadline(Math.ceil(remaining), from + remaining);
  }

  remainingMs(): number {
    return Math.max(0, this.at - now());
  }
}
