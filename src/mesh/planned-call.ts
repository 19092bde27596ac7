import { setMaxListeners } from "node:events";
import { Cancellation } from "../pipeline/cancellation.js";
import { Deadline } from "../pipeline/deadline.js";
import type { Meta } from "../contract/context.js";
import type { CallOptions } from "../contract/mesh-client.js";
import type { Scope } from "../contract/registration.js";
import type { CallPolicy } from "./call-options.js";
import type { LocalAction } from "./directory.js";

/** One call on its way: all that it knows and all that happens to it. Never shared between calls. */
export class PlannedCall {
  readonly deadline: Deadline;
  readonly cancellation: Cancellation;
  /** Nodes that failed in this call; undefined until there is one. */
  failed: Set<string> | undefined;

  constructor(
    readonly scope: Scope,
    readonly name: string,
    readonly args: unknown,
    readonly options: CallOptions,
    readonly policy: CallPolicy,
    /** As of the last pick of a node: services come and go while a call is tried again. */
    public local: LocalAction | undefined,
    /** Level and chain of the action that is called. */
    readonly step: Pick<Scope, "level" | "chain">,
    readonly meta: Meta,
  ) {
    this.deadline = Deadline.within(scope.deadline, policy.timeoutMs);
    this.cancellation = new Cancellation(scope.cancellation);
    if (options.signal?.aborted === true) this.cancellation.abort(options.signal.reason);
  }

  get cancelledByCaller(): boolean {
    return this.options.signal?.aborted === true || this.scope.cancellation.aborted;
  }

  /** Aborts with the caller's signal. Returns the removal of what that took. */
  followSignal(): () => void {
    const { signal } = this.options;
    if (signal === undefined) return () => this.cancellation.dispose();
    const abort = (): void => this.cancellation.abort(signal.reason);
    // Calls under way together may share a signal: each takes its listener off, so that many are no leak.
    if (signal instanceof EventTarget) setMaxListeners(0, signal);
    signal.addEventListener("abort", abort, { once: true });
    return () => {
      signal.removeEventListener("abort", abort);
      this.cancellation.dispose();
    };
  }

  /** An even share of what remains, so that a node that hangs leaves time for the attempts after it. */
  attemptDeadline(attemptsLeft: number): Deadline {
    const { attemptTimeoutMs } = this.policy;
    if (attemptTimeoutMs === undefined && attemptsLeft === 0) return this.deadline;
    const remainingMs = this.deadline.remainingMs();
    const limitMs = attemptTimeoutMs ?? remainingMs / (attemptsLeft + 1);
    return limitMs < remainingMs ? new Deadline(limitMs) : this.deadline;
  }

  markFailed(nodeId: string): void {
    (this.failed ??= new Set()).add(nodeId);
  }

  hasFailed(nodeId: string): boolean {
    return this.failed?.has(nodeId) === true;
  }
}
