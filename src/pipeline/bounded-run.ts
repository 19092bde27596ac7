import { MeshCancelledError, MeshTimeoutError } from "../errors.js";
import type { DeadlineView } from "../contract/registration.js";
import type { Cancellation } from "./cancellation.js";
import type { TimerWheel } from "./timer-wheel.js";

/** What ends a run from outside, and under which name. */
export interface RunLimits {
  readonly wheel: TimerWheel;
  readonly deadline: DeadlineView;
  /** Aborted at the deadline with the error that the caller gets. Let go of its parent when the run has ended. */
  readonly cancellation: Cancellation;
  readonly action: string;
  readonly nodeId?: string | undefined;
}

/**
 * Settles as `work` does, or rejects at the deadline or on cancellation, whichever is first. What comes later is dropped.
 * `onEnd` is called when `work` has settled.
 */
export function settleWithin(work: PromiseLike<unknown>, limits: RunLimits, onEnd?: () => void): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const { cancellation } = limits;
    const entry = limits.wheel.addAt(limits.deadline.at, () => {
      const error = timeoutError(limits.action, limits.deadline.budgetMs, { nodeId: limits.nodeId });
      reject(error);
      cancellation.abort(error);
    });
    const unlink = cancellation.onAbort((reason) => {
      entry.cancel();
      reject(interruption(limits.action, limits.deadline.budgetMs, reason));
    });
    const end = (): void => {
      entry.cancel();
      unlink();
      cancellation.dispose();
      onEnd?.();
    };
    Promise.resolve(work).then(
      (result) => {
        end();
        resolve(result);
      },
      (error: unknown) => {
        end();
        reject(error);
      },
    );
  });
}

/** The error of a call whose cancellation has aborted for `reason`. */
export function interruption(action: string, budgetMs: number, reason: unknown): Error {
  if (reason instanceof MeshTimeoutError) return timeoutError(action, budgetMs, { cause: reason });
  return new MeshCancelledError(`mesh call cancelled: ${action}`, { cause: reason });
}

export function timeoutError(action: string, budgetMs: number, options: { nodeId?: string | undefined; cause?: unknown } = {}): MeshTimeoutError {
  return new MeshTimeoutError(action, Math.round(budgetMs), options);
}
