import { isStorableName } from "./storable-name.js";

/** What one NOTIFY says: look. Rows in tables are the truth, so a forged or lost one costs a look or a poll, no more. */
export interface Wake {
  readonly nodeId: string;
  /** What is new in the log of broadcast events. */
  readonly events: News;
  /** Lanes that have got jobs. */
  readonly lanes: readonly string[];
  /** Lanes that have got jobs which fall due in so many ms. */
  readonly delayed: readonly DelayedLane[];
}

/** Names of events: nothing, some, or more than can be told. */
export type News = "none" | readonly string[] | "any";

export type DelayedLane = readonly [lane: string, delayMs: number];

/** Channel of all wakes of a mesh, as an argument of `storage.channel`. */
export const WAKE_CHANNEL = "mesh";

/** Of as many different events, each is told by its name, where the names are not too long. */
export const MAX_NAMES = 50;

/** Postgres refuses payloads of 8000 bytes and more. */
const MAX_BYTES = 7_900;

/** Of names, as JSON: what a node that wants none of them need not look for. */
const MAX_NAME_BYTES = 2_000;

interface Page {
  readonly lanes: string[];
  readonly delayed: DelayedLane[];
}

/**
 * As few payloads as hold the wake. A lane too long for a payload of its own is left to polling.
 */
export function encodeWake({ nodeId, events, lanes, delayed }: Wake): string[] {
  const news = Buffer.byteLength(JSON.stringify(events)) > MAX_NAME_BYTES ? "any" : events;
  const pages = paginate([...lanes, ...delayed], MAX_BYTES - Buffer.byteLength(JSON.stringify({ nodeId, events: news, lanes: [], delayed: [] })));
  if (news !== "none" && pages.length === 0) pages.push({ lanes: [], delayed: [] });
  return pages.map((page, index) => JSON.stringify({ nodeId, events: index === 0 ? news : "none", ...page }));
}

/** Both together. */
export function addNews(a: News, b: News): News {
  if (a === "any" || b === "none") return a;
  if (a === "none" || b === "any") return b;
  const names = [...new Set([...a, ...b])];
  return names.length > MAX_NAMES ? "any" : names;
}

function paginate(entries: readonly (string | DelayedLane)[], room: number): Page[] {
  const pages: Page[] = [];
  let free = 0;
  for (const entry of entries) {
    const bytes = Buffer.byteLength(JSON.stringify(entry)) + 1;
    if (bytes > room) continue;
    if (bytes > free) {
      pages.push({ lanes: [], delayed: [] });
      free = room;
    }
    const page = pages.at(-1)!;
    if (typeof entry === "string") page.lanes.push(entry);
    else page.delayed.push(entry);
    free -= bytes;
  }
  return pages;
}

/** Null where the payload is not a wake: anyone who can connect to the database can send anything. */
export function decodeWake(payload: string): Wake | null {
  try {
    const { nodeId, events, lanes, delayed } = JSON.parse(payload) as Partial<Wake>;
    if (typeof nodeId !== "string" || !isNews(events) || !areStrings(lanes) || !Array.isArray(delayed)) return null;
    return delayed.every(isDelayed) ? { nodeId, events, lanes, delayed } : null;
  } catch {
    return null;
  }
}

function isNews(events: unknown): events is News {
  if (events === "none" || events === "any") return true;
  return Array.isArray(events) && events.length <= MAX_NAMES && events.every(isStorableName);
}

function areStrings(list: unknown): list is readonly string[] {
  return Array.isArray(list) && list.every((entry) => typeof entry === "string");
}

function isDelayed(entry: unknown): boolean {
  return Array.isArray(entry) && typeof entry[0] === "string" && typeof entry[1] === "number" && entry[1] >= 0;
}
