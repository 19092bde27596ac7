import { isObject } from "./json-object.js";
import type { Hint } from "./discovery.js";
import type { IncomingEvent } from "../contract/messaging.js";

const PREFIX = "__chimpbase.mesh.info";

/** Bus events about nodes. What they say is a hint; the row is the truth. */
export const INFO_EVENTS = {
  announce: `${PREFIX}.announce`,
  heartbeat: `${PREFIX}.heartbeat`,
  leave: `${PREFIX}.leave`,
  /** This node has missed events for good. */
  resync: `${PREFIX}.resync`,
} as const;

export const INFO_PATTERN = `${PREFIX}.*`;

/** Null for an event that names no node. */
export function readHint(event: IncomingEvent): Hint | null {
  const { payload } = event;
  if (!isObject(payload) || typeof payload["nodeId"] !== "string") return null;
  return {
    nodeId: payload["nodeId"],
    rev: typeof payload["rev"] === "number" ? payload["rev"] : null,
    heartbeat: event.name === INFO_EVENTS.heartbeat,
  };
}
