import { setTimeout as sleep } from "node:timers/promises";
import { now } from "../history.js";
import { HEARTBEAT_MS, OFFLINE_AFTER_MS } from "../protocol.js";
import type { Findings } from "../findings.js";

/** Two heartbeats, and what a beat takes to be written and read on a busy machine. */
export const CONVERGE_LIMIT_MS = 2 * HEARTBEAT_MS + 100;
const LOOK_MS = 50;
const LONGEST_MS = 120_000;

/**
 * Looks at what the nodes hold for their peers until the limit has passed, counted from the end of the last fault.
 * It is the last disagreement that counts: damage to a row shows only when the row is read.
 */
export async function checkConvergence(findings: Findings, agrees: () => Promise<boolean>, from: number, limitMs = CONVERGE_LIMIT_MS): Promise<void> {
  let disagreedAt = from;
  for (let agreed = false, lookedAt = from; !agreed || findings.took(from, lookedAt) <= limitMs; ) {
    lookedAt = now();
    agreed = await agrees();
    if (!agreed) disagreedAt = lookedAt;
    if (lookedAt - from > LONGEST_MS) break;
    await sleep(LOOK_MS);
  }
  const tookMs = findings.took(from, disagreedAt);
  findings.check(tookMs <= limitMs, `nodes did not agree on their peers ${Math.round(tookMs)} ms after the last fault; the limit is ${Math.round(limitMs)} ms`);
}

/**
 * When a killed node must have been missed: nobody tells of it, so `offlineAfterMs` later. Where Postgres was not to be had
 * before that was over, silence means nothing until it is back, and counts from there.
 */
export class Missed {
  #by = -Infinity;

  killed(at: number): void {
    this.#by = Math.max(this.#by, at + OFFLINE_AFTER_MS);
  }

  unreadable(from: number, to: number): void {
    if (from < this.#by) this.#by = to + OFFLINE_AFTER_MS;
  }

  /** How much longer from `at` on. */
  inMs(at: number): number {
    return Math.max(0, this.#by - at);
  }
}
