import { MeshValidationError, toError } from "../errors.js";
import { publicMessage } from "../public-message.js";
import { retryRules, type Consumer } from "./consumers.js";
import type { ClaimedJob, FailedJob } from "./queue.js";
import type { ExpiredJob } from "./queue-upkeep.js";
import { baseLane, soloLane } from "./lane.js";

/** One failed attempt, as `history` keeps it. `at` is the database's clock, ISO 8601. */
export interface HistoryEntry {
  readonly attempt: number;
  readonly at: string;
  readonly nodeId: string;
  readonly error: { readonly name: string; readonly message: string; readonly code?: string };
}

/** What is in the tables of a job cannot be read: no attempt can succeed. */
export class CorruptJobError extends Error {
  override readonly name = "CorruptJobError";
}

const MAX_HISTORY = 20;
const MAX_MESSAGE = 1_024;
const LONGEST_DELAY_MS = 3_600_000;

/** Where a failed attempt sends the job. `atMs` is the database's clock. */
export function planFailure(job: ClaimedJob, thrown: unknown, consumers: readonly Consumer[], nodeId: string, atMs: number): FailedJob {
  const error = describeError(thrown);
  const { maxAttempts, retryDelayMs } = retryRules(consumers);
  const final = job.attempt >= maxAttempts || thrown instanceof MeshValidationError || thrown instanceof CorruptJobError;
  return {
    id: job.id,
    fence: job.fence,
    token: job.token,
    lane: baseLane(job.lane),
    delayMs: retryDelay(job.attempt, retryDelayMs),
    history: appendHistory(job.history, { attempt: job.attempt, at: isoTime(atMs), nodeId, error }),
    error: final ? JSON.stringify(error) : null,
  };
}

/**
 * Where an attempt without an end sends the job: its node may have been killed, by this very job perhaps. Ready again
 * at once at first; but what was lost twice, or has one attempt left, runs in the solo lane, where a job that kills its
 * process takes no innocent ones with it.
 */
export function planTakeover(job: ExpiredJob, maxAttempts: number): Omit<FailedJob, "delayMs"> {
  const error = { name: "MeshError", message: "the lease ran out: the node was killed, frozen or cut off", code: "LEASE_LOST" };
  const base = baseLane(job.lane);
  const final = job.attempt >= maxAttempts;
  return {
    id: job.id,
    fence: job.fence,
    token: job.token,
    lane: !final && job.attempt >= Math.min(2, maxAttempts - 1) ? soloLane(base) : base,
    history: appendHistory(job.history, { attempt: job.attempt, at: isoTime(job.leaseEndedAtMs), nodeId: job.holder, error }),
    error: final ? JSON.stringify(error) : null,
  };
}

/** Doubles from attempt to attempt up to an hour; a quarter of it is random, so that jobs which failed together part. */
export function retryDelay(attempt: number, retryDelayMs: number): number {
  const full = Math.min(LONGEST_DELAY_MS, retryDelayMs * 2 ** (attempt - 1));
  return full * (0.75 + Math.random() / 4);
}

function appendHistory(history: string, entry: HistoryEntry): string {
  return JSON.stringify([...parseHistory(history), entry].slice(-MAX_HISTORY));
}

function parseHistory(history: string): unknown[] {
  try {
    const entries: unknown = JSON.parse(history);
    return Array.isArray(entries) ? entries : [];
  } catch {
    return [];
  }
}

function describeError(thrown: unknown): HistoryEntry["error"] {
  try {
    return readError(toError(thrown));
  } catch {
    // Whatever a handler threw must not keep its failure from being written.
    return { name: "Error", message: "the error that was thrown cannot be read" };
  }
}

function readError(error: Error & { code?: unknown }): HistoryEntry["error"] {
  const { name, code } = error;
  const full = publicMessage(error);
  const text = full.length > MAX_MESSAGE ? `${full.slice(0, MAX_MESSAGE)}…` : full;
  return { name: String(name), message: text, ...(typeof code === "string" ? { code } : {}) };
}

/** A time that no ISO string can hold must not keep a failure from being written. */
function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
