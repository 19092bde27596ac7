import { setTimeout as pause } from "node:timers/promises";
import { MeshCancelledError } from "../errors.js";
import { within } from "../pipeline/time-limit.js";
import type { Logger } from "../logger.js";
import type { HttpServer } from "../runtime/http-server.js";
import type { Engines } from "./engines.js";

/** How long what ignores its signal may take to notice, past the drain limit. */
const GRACE_MS = 500;
/** After this time the log says what the drain waits for. */
const PATIENCE_MS = 1_000;
/** Between a handler's end and its job's completion, the worker engine has no end to wait for, only names. */
const LOOK_MS = 10;
const MOST_NAMED = 20;

export interface DrainOptions {
  readonly engines: Engines;
  readonly http: HttpServer | null;
  readonly limitMs: number;
  readonly log: Logger;
}

/**
 * Waits until nothing is under way any more, at most `limitMs`; then aborts the rest. The HTTP server goes on taking
 * requests until what it had at first has ended, and then answers 503, so that steady traffic cannot keep
 * the drain from ending.
 */
export async function drain(options: DrainOptions): Promise<void> {
  const { engines, http, limitMs, log } = options;
  const patience = setTimeout(() => log.info("the drain waits for handlers under way", { running: running(options) }), PATIENCE_MS);
  const ended = await endsWithin(limitMs, async (signal) => {
    await Promise.all([engines.dispatcher.inFlight.endOfCurrent(), http?.inFlight.endOfCurrent()]);
    http?.refuseNew();
    await untilIdle(options, signal);
  });
  clearTimeout(patience);
  if (ended) return;
  // Where the limit came first: what ignores it must not be joined by more.
  http?.refuseNew();
  log.warn(`the drain limit of ${limitMs}ms is reached: what still runs is aborted`, { running: running(options) });
  engines.dispatcher.cancelAll(new MeshCancelledError(`the host stops, and its drain limit of ${limitMs}ms is reached`));
  await endsWithin(GRACE_MS, (signal) => untilIdle(options, signal));
}

/** False where `work` has not ended within `limitMs`; its signal is aborted then. */
async function endsWithin(limitMs: number, work: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
  const limit = new AbortController();
  try {
    return (await within(work(limit.signal), limitMs)) !== null;
  } finally {
    limit.abort();
  }
}

async function untilIdle(options: DrainOptions, signal: AbortSignal): Promise<void> {
  const { engines, http } = options;
  while (!signal.aborted && !isIdle(options)) {
    await Promise.all([engines.dispatcher.inFlight.idle(), http?.inFlight.idle()]);
    if (!isIdle(options)) await pause(LOOK_MS);
  }
}

function isIdle({ engines, http }: DrainOptions): boolean {
  const { dispatcher, worker } = engines;
  return dispatcher.inFlight.size === 0 && (http?.inFlight.size ?? 0) === 0 && worker.inFlight().length === 0;
}

/** Each with how long it has been running: `v1.users.create (1204 ms)`. */
function running({ engines, http }: DrainOptions): string[] {
  const { dispatcher, worker } = engines;
  const lists = [dispatcher.inFlight, ...(http === null ? [] : [http.inFlight])];
  const jobs = worker.inFlight();
  const named = [...lists.flatMap((list) => list.oldest(MOST_NAMED)).map(({ name, ageMs }) => `${name} (${Math.round(ageMs)} ms)`), ...jobs].slice(0, MOST_NAMED);
  const all = lists.reduce((sum, { size }) => sum + size, jobs.length);
  return all > named.length ? [...named, `… and ${all - named.length} more`] : named;
}
