import { BoundedRun, settleWith, type RunLimits } from "./bounded-run.js";

/**
 * Runs that most often end in the turn of the event loop in which they began. Only one that does not gets an entry in the
 * wheel and a link to what would cancel it (as a generational collector spends nothing on what dies young).
 */
export class YoungRuns {
  readonly #runs: YoungRun[] = [];
  /** At the end of this turn. */
  #grows = false;

  /** As `settleWithin`, where what `begun` stands for ends with `work`. */
  settleWithin(work: PromiseLike<unknown>, limits: RunLimits, begun: Begun): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const run = new YoungRun(this.#runs, begun, limits, reject);
      this.#growAfterTurn();
      settleWith(work, run, resolve, reject);
    });
  }

  #growAfterTurn(): void {
    if (this.#grows) return;
    this.#grows = true;
    setImmediate(() => {
      this.#grows = false;
      for (const run of this.#runs.splice(0)) run.limit();
    });
  }
}

interface Begun {
  end(): void;
}

class YoungRun extends BoundedRun {
  readonly #young: YoungRun[];
  readonly #begun: Begun;
  /** Among the young; -1: not any more. */
  #index: number;

  constructor(young: YoungRun[], begun: Begun, limits: RunLimits, reject: (error: unknown) => void) {
    super(limits, reject);
    this.#young = young;
    this.#begun = begun;
    this.#index = young.push(this) - 1;
  }

  override limit(): void {
    this.#index = -1;
    super.limit();
  }

  override end(): void {
    if (this.#index >= 0) this.#endYoung();
    super.end();
    this.#begun.end();
  }

  #endYoung(): void {
    const last = this.#young.pop()!;
    if (last !== this) this.#young[this.#index] = last;
    last.#index = this.#index;
    const { cancellation } = this.limits;
    if (cancellation.aborted) this.interrupt(cancellation.reason);
  }
}
