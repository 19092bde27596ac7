import assert from "node:assert/strict";
import { Findings } from "./findings.js";
import type { Call, Effect, Emit, Entry, Heard, Query, Transition } from "./history.js";

export const emit = (seq: number, more: Partial<Emit> = {}): Emit =>
  ({ kind: "emit", event: "balanced", node: "n1", seq, startedAt: seq, endedAt: seq + 1, error: null, ...more });
export const effect = (seq: number, more: Partial<Effect> = {}): Effect => ({ kind: "effect", event: "balanced", group: "probe", node: "n2", emitter: "n1", seq, at: seq + 2, ...more });
export const heard = (seq: number, more: Partial<Heard> = {}): Heard => ({ kind: "heard", event: "broadcast", node: "n2", emitter: "n1", seq, at: seq + 2, ...more });
export const call = (more: Partial<Call> = {}): Call =>
  ({ kind: "call", node: "n1", attempts: 0, startedAt: 10_000, endedAt: 10_010, ranOn: "n2", error: null, retryable: null, failedOn: null, ...more });
export const query = (more: Partial<Query> = {}): Query => ({ kind: "query", node: "n1", startedAt: 0, endedAt: 5, error: null, ...more });
export const step = (change: Transition["change"], more: Partial<Transition> = {}): Transition =>
  ({ kind: "transition", job: "1", change, by: "n1", holder: "id1", successor: null, kept: false, expired: false, at: 0, ...more });

export function found(entries: readonly Entry[]): Findings {
  const findings = new Findings();
  findings.history.add(...entries);
  return findings;
}

/** What a checker says of a history. */
export function violations(entries: readonly Entry[], check: (findings: Findings) => void): string[] {
  const findings = found(entries);
  check(findings);
  return findings.violations;
}

export function assertFinds(actual: readonly string[], ...expected: readonly RegExp[]): void {
  assert.equal(actual.length, expected.length, actual.join("\n"));
  expected.forEach((pattern, index) => assert.match(actual[index]!, pattern));
}
