import { Deadline } from "../pipeline/deadline.js";
import type { Cancellation } from "../pipeline/cancellation.js";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import type { YoungRuns } from "../pipeline/young-runs.js";
import type { BegunRun, DeadlineView, Dispatcher, Scope } from "../contract/registration.js";
import type { LocalAction } from "./directory.js";

export interface LocalRunParts {
  readonly dispatcher: Dispatcher;
  readonly wheel: TimerWheel;
  readonly young: YoungRuns;
  readonly nodeId: string;
}

/** What a run knows of its call. `cancellation` is the run's own: aborted at the deadline, let go of at the end. */
export interface LocalRunScope extends Omit<Scope, "deadline"> {
  readonly cancellation: Cancellation;
}

/** Runs an action of this node, for a caller here or on a peer, no longer than `deadline` and the action's own `timeoutMs` allow. */
export function runLocal(parts: LocalRunParts, action: LocalAction, args: unknown, given: LocalRunScope, deadline: DeadlineView): Promise<unknown> {
  const within = action.timeoutMs === undefined ? deadline : shorter(deadline, action.timeoutMs);
  const { requestId, meta, caller, level, chain, cancellation } = given;
  let run: BegunRun;
  try {
    run = parts.dispatcher.begin(action.target, args, { requestId, meta, caller, level, chain, deadline: within, cancellation });
  } catch (error) {
    cancellation.dispose();
    return Promise.reject(error);
  }
  if (run.pending !== null) {
    const { wheel, nodeId } = parts;
    return parts.young.settleWithin(run.pending, { wheel, deadline: within, cancellation, action: action.name, nodeId }, run);
  }
  // What has ended already needs no limits.
  run.end();
  cancellation.dispose();
  return Promise.resolve(run.result);
}

function shorter(deadline: DeadlineView, timeoutMs: number): DeadlineView {
  return timeoutMs < deadline.remainingMs() ? new Deadline(timeoutMs) : deadline;
}
