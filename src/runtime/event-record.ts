import { readMeta, type EncodedOrigin } from "./job-headers.js";
import type { IncomingEvent } from "../contract/messaging.js";

/** One event in a row of the broadcast log: `[id, name, payload, requestId, meta]`. The row holds a JSON array of these. */
type EventRecord = readonly [id: string, name: string, payload: unknown, requestId: string, meta: unknown];

interface RecordParts extends EncodedOrigin {
  readonly id: string;
  readonly name: string;
  readonly payloadJson: string;
}

export function encodeRow(events: readonly RecordParts[]): string {
  return `[${events.map(({ id, name, payloadJson, requestIdJson, metaJson }) => `["${id}",${JSON.stringify(name)},${payloadJson},${requestIdJson},${metaJson}]`).join(",")}]`;
}

/** Throws where `text` is no row of records. */
export function decodeRow(text: string, nodeId: string, emittedAtMs: number): IncomingEvent[] {
  const records = JSON.parse(text) as readonly EventRecord[];
  return records.map(([id, name, payload, requestId, meta]) => ({ id, name, payload, requestId, meta: readMeta(meta), nodeId, emittedAtMs }));
}

/** Equal events that share no object, so that one handler cannot change what another gets. */
export function copies(event: IncomingEvent, count: number): IncomingEvent[] {
  if (count === 1) return [event];
  const text = JSON.stringify([event.payload, event.meta]);
  return Array.from({ length: count }, (_, index) => {
    if (index === 0) return event;
    const [payload, meta] = JSON.parse(text) as [unknown, IncomingEvent["meta"]];
    return { ...event, payload, meta };
  });
}
