import { MeshOverloadedError } from "../errors.js";
import type { SendQueue } from "./send-queue.js";
import { markUndelivered } from "./undelivered.js";

/**
 * Share of a call's time that it may wait for its turn. A queue that took all of it would hand the peer nothing but requests whose
 * callers have given up when the answer comes.
 */
export const LONGEST_WAIT = 0.5;

/** The error of a call that was not sent: it goes to another node at once, where there is one. */
export function overloaded({ nodeId }: { readonly nodeId: string }, reason: string): Error {
  return markUndelivered(new MeshOverloadedError(`mesh peer ${nodeId} has too much to do: ${reason}`, { nodeId }));
}

/** Throws where a request would wait too long in the queue, as far as is known. */
export function refuseWait(peer: { readonly nodeId: string }, { expectedWaitMs }: SendQueue, remainingMs: number): void {
  if (expectedWaitMs <= remainingMs * LONGEST_WAIT) return;
  throw overloaded(peer, `a request would wait ${Math.round(expectedWaitMs)}ms for its turn, longer than its time allows`);
}
