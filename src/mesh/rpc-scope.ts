import { enterCall } from "../pipeline/call-depth.js";
import { asTraceparent, TRACEPARENT } from "../pipeline/traceparent.js";
import type { Caller, Meta } from "../contract/context.js";
import type { CallChain, DeadlineView, Scope } from "../contract/registration.js";
import { mergeMeta } from "./meta.js";
import type { ReceivedRequest } from "./rpc-codec.js";

/** Names of a chain that travel with a call: enough to see a circle. */
const NAMES_ON_THE_WIRE = 10;

/** What is known of a request's sender where its body does not say so. */
export interface SenderHints {
  readonly callerNodeId: string | null;
  /** Not checked yet. */
  readonly traceparent: unknown;
}

/** The newest actions of a chain, newest first. */
export function newestActions(chain: CallChain | null): string[] {
  const names: string[] = [];
  for (let link = chain; link !== null && names.length < NAMES_ON_THE_WIRE; link = link.parent) names.push(link.action);
  return names;
}

/** The scope in which an action runs for a peer: `root`, continued where the caller's chain stood. Throws `CALL_DEPTH`. */
export function receivedScope(received: ReceivedRequest, hints: SenderHints, root: Scope, deadline: DeadlineView): Scope {
  const parent = received.chain.reduceRight<CallChain | null>((link, action) => ({ action, parent: link }), null);
  return {
    ...root,
    ...enterCall({ level: received.level - 1, chain: parent }, received.actionName),
    meta: withTrace(received.meta, hints.traceparent),
    caller: callerOf(received, hints),
    deadline,
  };
}

function callerOf(received: ReceivedRequest, hints: SenderHints): Caller | null {
  const nodeId = received.callerNodeId ?? hints.callerNodeId;
  return nodeId === null ? null : { nodeId, action: received.chain[0] ?? null };
}

/**
 * A trace travels in `meta.traceparent`, from which it also becomes the header of calls to peers. The header, which no
 * signature covers, counts only where the body has none.
 */
function withTrace(meta: Meta, header: unknown): Meta {
  const trace = asTraceparent(header);
  return trace === null || meta[TRACEPARENT] !== undefined ? meta : mergeMeta(meta, { [TRACEPARENT]: trace });
}
