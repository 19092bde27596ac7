import { createHash } from "node:crypto";
import { INFO_EVENTS } from "./info-events.js";
import { isObject, parseObject } from "./json-object.js";
import { clampLoad } from "./metadata.js";
import type { NodeRow } from "./registry.js";
import type { IncomingEvent } from "../contract/messaging.js";

/** What all must know of a node of which nothing but the heartbeat is new. Times are the database's clock. */
export interface DigestLine {
  readonly nodeId: string;
  readonly lastHeartbeatMs: number;
  /** Of the rest of its row. */
  readonly stamp: string;
  readonly cpuLoad: number;
}

/** All nodes as one of them has read them, in one event for all others, so that not each must read each. */
export interface Digest {
  /** Who has read them. */
  readonly nodeId: string;
  readonly nowMs: number;
  readonly lines: readonly DigestLine[];
}

/** With ids of the longest kind that is called, what one event holds. In a mesh of more nodes each reads for itself. */
const MOST_LINES = 5_000;
const LONGEST_ID = 128;

type Written = readonly [nodeId: string, lastHeartbeatMs: number, stamp: string, cpuLoad: number];

/** Equal for equal rows, whatever their heartbeat and `cpuLoad`. */
export function stampOf({ advertisedUrl, startedAtMs, servicesHash, metadataJson }: NodeRow): string {
  const metadata = metadataJson === null ? null : (parseObject(metadataJson) ?? metadataJson);
  const steady = isObject(metadata) ? { ...metadata, cpuLoad: 0 } : metadata;
  return createHash("sha1").update(JSON.stringify([advertisedUrl, startedAtMs, servicesHash, steady])).digest("base64url").slice(0, 16);
}

export function digestLine(row: NodeRow): DigestLine {
  const metadata = row.metadataJson === null ? null : parseObject(row.metadataJson);
  return { nodeId: row.nodeId, lastHeartbeatMs: row.lastHeartbeatMs, stamp: stampOf(row), cpuLoad: clampLoad(metadata?.["cpuLoad"]) };
}

/** There is somebody to tell, and one event is enough for it. */
export function isTellable({ length }: readonly unknown[]): boolean {
  return length > 1 && length <= MOST_LINES;
}

/** As `peers` in the payload of a heartbeat event. */
export function writeLines(lines: readonly DigestLine[]): readonly Written[] {
  return lines.filter(({ nodeId }) => nodeId.length <= LONGEST_ID).map(({ nodeId, lastHeartbeatMs, stamp, cpuLoad }) => [nodeId, lastHeartbeatMs, stamp, cpuLoad]);
}

/** Null for an event that holds none, not even of its own node. Lines that are malformed are left out; none is from later than the event. */
export function readDigest({ name, payload, emittedAtMs }: IncomingEvent): Digest | null {
  if (name !== INFO_EVENTS.heartbeat || !isObject(payload) || typeof payload["nodeId"] !== "string" || !Array.isArray(payload["peers"])) return null;
  const { nodeId: own } = payload;
  const lines = payload["peers"].filter(isWritten).map(([nodeId, lastHeartbeatMs, stamp, cpuLoad]) => ({
    nodeId, lastHeartbeatMs: Math.min(lastHeartbeatMs, emittedAtMs), stamp, cpuLoad: clampLoad(cpuLoad),
  }));
  return lines.some(({ nodeId }) => nodeId === own) ? { nodeId: own, nowMs: emittedAtMs, lines } : null;
}

function isWritten(line: unknown): line is Written {
  return Array.isArray(line) && typeof line[0] === "string" && Number.isFinite(line[1]) && typeof line[2] === "string";
}
