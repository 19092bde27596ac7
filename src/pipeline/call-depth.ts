import { MeshError } from "../errors.js";
import type { CallChain, Scope } from "../contract/registration.js";

/** Calls within calls that one request may go through, on all nodes together. */
export const MAX_CALL_DEPTH = 100;

/** The newest actions that the message about a chain that is too deep names. */
const NAMED_IN_MESSAGE = 10;

/**
 * Level and chain of a call of `action` from within `scope`. Throws `MeshError` with code `CALL_DEPTH`, not retryable,
 * for a chain that is too deep: it is almost always services that call each other in a circle.
 */
export function enterCall(scope: Pick<Scope, "level" | "chain">, action: string): Pick<Scope, "level" | "chain"> {
  const chain: CallChain = { action, parent: scope.chain };
  const level = scope.level + 1;
  if (level > MAX_CALL_DEPTH) {
    throw new MeshError(`call depth over ${MAX_CALL_DEPTH}: ${describeChain(chain)}`, { code: "CALL_DEPTH" });
  }
  return { level, chain };
}

function describeChain(chain: CallChain): string {
  const names: string[] = [];
  let link: CallChain | null = chain;
  for (; link !== null && names.length < NAMED_IN_MESSAGE; link = link.parent) names.unshift(link.action);
  return (link === null ? "" : "… → ") + names.join(" → ");
}
