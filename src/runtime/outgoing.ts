import { randomUUID } from "node:crypto";
import type { MessageOrigin, OutgoingEvent, OutgoingJob, Reach } from "../contract/messaging.js";
import { MeshError, MeshPayloadTooLargeError, MeshValidationError, toError } from "../errors.js";
import type { EncodedOrigin } from "./job-headers.js";
import { isStorableName, LONGEST_NAME } from "./storable-name.js";

/** A message, ready to be written: JSON already at the call, so that what the caller changes later does not matter. */
interface EncodedMessage extends EncodedOrigin {
  readonly payloadJson: string;
  readonly bytes: number;
}

export interface EncodedEvent extends EncodedMessage {
  readonly kind: "event";
  readonly id: string;
  readonly name: string;
  readonly reach: Reach;
}

export interface EncodedJob extends EncodedMessage {
  readonly kind: "job";
  readonly queue: string;
  readonly delayMs: number;
}

export type Encoded = EncodedEvent | EncodedJob;

/** Largest payload, and largest meta, in bytes of UTF-8 JSON. */
export const MAX_BYTES = 1024 * 1024;
const MAX_DELAY_MS = 100 * 365 * 86_400_000;
/** What a message takes beside its payload and meta, about. */
const ENVELOPE_BYTES = 300;

export function encodeEvent(event: OutgoingEvent, reach: Reach): EncodedEvent {
  const name = checkName(event.name, "event");
  const { payloadJson, requestIdJson, metaJson, bytes } = encode(event, event.payload, `of event "${name}"`);
  return { kind: "event", id: randomUUID(), name, reach, payloadJson, requestIdJson, metaJson, bytes };
}

export function encodeJob(job: OutgoingJob): EncodedJob {
  const queue = checkName(job.queue, "queue");
  const delayMs = checkDelay(job.delayMs ?? 0);
  return { kind: "job", queue, delayMs, ...encode(job, job.payload, `for queue "${queue}"`) };
}

/** A request id is made a string whatever it is: one bad record would spoil its row for all. */
function encode(origin: MessageOrigin, value: unknown, of: string): EncodedMessage {
  const payload = serialize(value, `payload ${of}`);
  const meta = serialize(origin.meta, `meta ${of}`);
  const bytes = payload.bytes + meta.bytes + ENVELOPE_BYTES;
  return { payloadJson: payload.json, requestIdJson: JSON.stringify(String(origin.requestId)), metaJson: meta.json, bytes };
}

function checkName(name: unknown, subject: "event" | "queue"): string {
  if (isStorableName(name)) return name;
  const message = `${subject} must be a name of 1 to ${LONGEST_NAME} characters without control characters, not ${describeValue(name)}`;
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
