import { MeshCancelledError, MeshTimeoutError } from "../errors.js";
import type { DeadlineView } from "../contract/registration.js";
import type { Cancellation } from "./cancellation.js";
import type { TimerWheel, WheelEntry } from "./timer-wheel.js";

/** What ends a run from outside, and under which name. */
export interface RunLimits {
  readonly wheel: TimerWheel;
  readonly deadline: DeadlineView;
  /** Aborted at the deadline with the error that the caller gets. Let go of its parent when the run has ended. */
  readonly cancellation: Cancellation;
  readonly action: string;
  readonly nodeId?: string | undefined;
}

/** Settles as `work` does, or rejects at the deadline or on cancellation, whichever is first. What comes later is dropped. */
export function settleWithin(work: PromiseLike<unknown>, limits: RunLimits): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const run = new BoundedRun(limits, reject);
    run.limit();
    settleWith(work, run, resolve, reject);
  });
}

/** `run` ends with `work`. */
export function settleWith(work: PromiseLike<unknown>, run: BoundedRun, resolve: (result: unknown) => void, reject: (error: unknown) => void): void {
  Promise.resolve(work).then(
    (result) => {
      run.end();
      resolve(result);
    },
    (error: unknown) => {
      run.end();
      reject(error);
    },
  );
}

/** Something under way that its deadline and its cancellation end, once they limit it. */
export class BoundedRun {
  protected readonly limits: RunLimits;
  readonly #reject: (error: unknown) => void;
  #entry: WheelEntry | undefined;
  #unlink: (() => void) | undefined;

  constructor(limits: RunLimits, reject: (error: unknown) => void) {
    this.limits = limits;
    this.#reject = reject;
  }

  /** From now on. */
  limit(): void {
    const { wheel, deadline, cancellation } = this.limits;
    this.#entry = wheel.addAt(deadline.at, () => this.timeOut());
    this.#unlink = cancellation.onAbort((reason) => this.interrupt(reason));
  }

  end(): void {
    this.#entry?.cancel();
    this.#unlink?.();
    this.limits.cancellation.dispose();
  }

  protected timeOut(): void {
    const { action, deadline, nodeId, cancellation } = this.limits;
    const error = timeoutError(action, deadline.budgetMs, { nodeId });
    this.#reject(error);
    cancellation.abort(error);
  }

  protected interrupt(reason: unknown): void {
    this.#entry?.cancel();
    this.#reject(interruption(this.limits.action, this.limits.deadline.budgetMs, reason));
  }
}

/** The error of a call whose cancellation has aborted for `reason`. */
export function interruption(action: string, budgetMs: number, reason: unknown): Error {
  if (reason instanceof MeshTimeoutError) return timeoutError(action, budgetMs, { cause: reason });
  return new MeshCancelledError(`mesh call cancelled: ${action}`, { cause: reason });
}

export function timeoutError(action: string, budgetMs: number, options: { nodeId?: string | undefined; cause?: unknown } = {}): MeshTimeoutError {
  return new MeshTimeoutError(action, Math.round(budgetMs), options);
}
