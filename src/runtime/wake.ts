/** What one NOTIFY says: look. Rows in tables are the truth, so a forged or lost one costs a look or a poll, no more. */
export interface Wake {
  readonly nodeId: string;
  /** There is something new in the log of broadcast events. */
  readonly events: boolean;
  /** Lanes that have got jobs. */
  readonly lanes: readonly string[];
}

/** Channel of all wakes of a mesh, as an argument of `storage.channel`. */
export const WAKE_CHANNEL = "mesh";

/** Postgres refuses payloads of 8000 bytes and more. */
const MAX_BYTES = 7_900;

/**
 * As few payloads as hold the wake. A lane too long for a payload of its own is left to polling.
 */
export function encodeWake(wake: Wake): string[] {
  const room = MAX_BYTES - Buffer.byteLength(JSON.stringify({ ...wake, lanes: [] }));
  const payloads: string[] = [];
  let lanes: string[] = [];
  let free = room;
  const flush = (): void => void payloads.push(JSON.stringify({ ...wake, events: wake.events && payloads.length === 0, lanes }));
  for (const lane of wake.lanes) {
    const bytes = Buffer.byteLength(JSON.stringify(lane)) + 1;
    if (bytes > room) continue;
    if (bytes > free) {
      flush();
      lanes = [];
      free = room;
    }
    lanes.push(lane);
    free -= bytes;
  }
  if (lanes.length > 0 || (wake.events && payloads.length === 0)) flush();
  return payloads;
}

/** Null where the payload is not a wake: anyone who can connect to the database can send anything. */
export function decodeWake(payload: string): Wake | null {
  try {
    const { nodeId, events, lanes } = JSON.parse(payload) as Partial<Wake>;
    if (typeof nodeId !== "string" || typeof events !== "boolean" || !Array.isArray(lanes)) return null;
    return lanes.every((lane) => typeof lane === "string") ? { nodeId, events, lanes } : null;
  } catch {
    return null;
  }
}
