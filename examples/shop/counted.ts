import { Action, Started, type Context } from "@chimpbase/mesh";
import type { Constructor } from "./constructor.js";

/** Mixin: counts what a node does, and lets anyone ask for it. */
export const Counted = <B extends Constructor>(Base: B) => {
  abstract class CountedService extends Base {
    readonly #counts = new Map<string, number>();

    protected count(what: string): void {
      this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
    }

    @Started()
    resetCounts(): void {
      this.#counts.clear();
    }

    @Action()
    counts(_ctx: Context): Record<string, number> {
      return Object.fromEntries(this.#counts);
    }
  }
  return CountedService;
};
