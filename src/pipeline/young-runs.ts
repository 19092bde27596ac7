import { BoundedRun, settleWith, type RunLimits } from "./bounded-run.js";
import { now } from "./deadline.js";

/**
 * Runs that most often end in the turn of the event loop in which they began. Only one that does not gets an entry in the
 * wheel and a link to what would cancel it (as a generational collector spends nothing on what dies young).
 */
export class YoungRuns {
  /** In no order. */
  readonly #runs: YoungRun[] = [];
  #growing = false;

  /** As `settleWithin`; calls `begun.end()` when `work` has settled. */
  settleWithin(work: PromiseLike<unknown>, limits: RunLimits, begun: Begun): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const run = new YoungRun(this, begun, limits, reject);
      this.#add(run);
      settleWith(work, run, resolve, reject);
    });
  }

  /** @internal For a run that ends young. */
  remove(run: YoungRun): void {
    const last = this.#runs.pop()!;
    if (last !== run) this.#runs[run.index] = last;
    last.index = run.index;
    run.index = GROWN;
  }

  #add(run: YoungRun): void {
    run.index = this.#runs.push(run) - 1;
    if (this.#growing) return;
    this.#growing = true;
    setImmediate(() => this.#grow());
  }

  #grow(): void {
    this.#growing = false;
    const nowMs = now();
    for (const run of this.#runs.splice(0)) run.grow(nowMs);
  }
}

interface Begun {
  end(): void;
}

const GROWN = -1;

class YoungRun extends BoundedRun {
  /** Among the young, or `GROWN`. */
  index = GROWN;
  readonly #young: YoungRuns;
  readonly #begun: Begun;

  constructor(young: YoungRuns, begun: Begun, limits: RunLimits, reject: (error: unknown) => void) {
    super(limits, reject);
    this.#young = young;
    this.#begun = begun;
  }

  grow(nowMs: number): void {
    this.index = GROWN;
    if (this.limits.deadline.at <= nowMs) this.timeOut();
    else this.limit();
  }

  override end(): void {
    if (this.index !== GROWN) this.#endYoung();
    super.end();
    this.#begun.end();
  }

  /** Nobody has told it of a cancellation: it looks now, before its result gets through. */
  #endYoung(): void {
    this.#young.remove(this);
    const { cancellation } = this.limits;
    if (cancellation.aborted) this.interrupt(cancellation.reason);
  }
}
