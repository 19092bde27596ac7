import { randomUUID } from "node:crypto";
import type { MessageOrigin, OutgoingEvent, OutgoingJob, Reach } from "../contract/messaging.js";
import { MeshError, MeshPayloadTooLargeError, MeshValidationError, toError } from "../errors.js";
import { encodeRecord } from "./event-record.js";
import { encodeJobHeaders } from "./job-headers.js";

/** An event, ready to be written: serialised at the call, so that what the caller changes later does not matter. */
export interface EncodedEvent {
  readonly kind: "event";
  readonly name: string;
  /** For the broadcast log; null where the event goes to balanced groups only. */
  readonly record: string | null;
  /** For jobs; null where the event goes to broadcast handlers only. */
  readonly job: { readonly payload: string; readonly headers: string } | null;
  readonly bytes: number;
}

export interface EncodedJob {
  readonly kind: "job";
  readonly queue: string;
  readonly payload: string;
  readonly headers: string;
  readonly delayMs: number;
  readonly bytes: number;
}

export type Encoded = EncodedEvent | EncodedJob;

/** Largest payload, and largest meta, in bytes of UTF-8 JSON. */
export const MAX_BYTES = 1024 * 1024;
const MAX_NAME = 255;
const MAX_DELAY_MS = 100 * 365 * 86_400_000;
/** What a message takes beside its payload and meta, about. */
const ENVELOPE_BYTES = 300;

export function encodeEvent(event: OutgoingEvent, reach: Reach, nodeId: string): EncodedEvent {
  const name = checkName(event.name, "event");
  const id = randomUUID();
  const payload = serialize(event.payload, `payload of event "${name}"`);
  const meta = serialize(event.meta, `meta of event "${name}"`);
  return {
    kind: "event",
    name,
    record: reach === "balanced" ? null : encodeRecord(id, name, payload.json, event.requestId, meta.json),
    job: reach === "broadcast" ? null : { payload: payload.json, headers: headersOf(event, nodeId, id) },
    bytes: payload.bytes + meta.bytes + ENVELOPE_BYTES,
  };
}

export function encodeJob(job: OutgoingJob, nodeId: string): EncodedJob {
  const queue = checkName(job.queue, "queue");
  const payload = serialize(job.payload, `payload for queue "${queue}"`);
  const meta = serialize(job.meta, `meta for queue "${queue}"`);
  const bytes = payload.bytes + meta.bytes + ENVELOPE_BYTES;
  return { kind: "job", queue, payload: payload.json, headers: headersOf(job, nodeId), delayMs: checkDelay(job.delayMs ?? 0), bytes };
}

function headersOf({ requestId, meta }: MessageOrigin, nodeId: string, id?: string): string {
  return encodeJobHeaders({ ...(id === undefined ? {} : { id }), requestId, meta, nodeId });
}

/** Control characters and lone surrogates are what Postgres cannot store or an index would choke on. */
function checkName(name: unknown, subject: "event" | "queue"): string {
  if (typeof name === "string" && name.length > 0 && name.length <= MAX_NAME && !/[\p{Cc}\p{Cs}]/u.test(name)) return name;
  const message = `${subject} must be a name of 1 to ${MAX_NAME} characters without control characters, not ${describeValue(name)}`;
  throw new MeshValidationError(message, [{ path: subject, message, constraint: "name" }]);
}

function checkDelay(delayMs: unknown): number {
  if (typeof delayMs === "number" && delayMs >= 0 && delayMs <= MAX_DELAY_MS) return delayMs;
  const message = `delayMs must be a number of milliseconds from 0 to ${MAX_DELAY_MS}, not ${describeValue(delayMs)}`;
  throw new MeshValidationError(message, [{ path: "delayMs", message, constraint: "range" }]);
}

function describeValue(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value.slice(0, 100)) : String(value);
}

function serialize(value: unknown, what: string): { json: string; bytes: number } {
  const json = toJson(value, what);
  const bytes = Buffer.byteLength(json);
  if (bytes > MAX_BYTES) throw new MeshPayloadTooLargeError(`${what} is ${bytes} bytes of JSON, more than the limit of ${MAX_BYTES}`);
  return { json, bytes };
}

function toJson(value: unknown, what: string): string {
  if (typeof value === "function" || typeof value === "symbol") throw notSerializable(what, `it is a ${typeof value}`);
  try {
    return JSON.stringify(value) ?? "null";
  } catch (error) {
    throw notSerializable(what, toError(error).message, error);
  }
}

function notSerializable(what: string, reason: string, cause?: unknown): MeshError {
  return new MeshError(`${what} cannot be serialised as JSON: ${reason}`, { code: "PAYLOAD_NOT_SERIALIZABLE", status: 400, retryable: false, cause });
}
