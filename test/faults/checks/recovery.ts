import { accepted, failed } from "../checks.js";
import { idOf } from "../history.js";
import type { Findings } from "../findings.js";

/** Share of the rate that calls must keep up while Postgres is away. */
const LEAST_RATE = 0.9;

/** Calls a second that came back between the two. */
export function callRate({ history }: Findings, from: number, to: number): number {
  const done = history.all("call").filter((call) => !failed(call) && call.endedAt >= from && call.endedAt <= to);
  return (done.length * 1_000) / (to - from);
}

export function checkRate(findings: Findings, before: number, during: number): void {
  findings.check(before > 0, "no call came back before the outage");
  findings.check(during >= LEAST_RATE * before, `calls fell from ${before.toFixed(0)} to ${during.toFixed(0)} a second`);
}

/** Names of the nodes whose emits have been accepted that began since. */
export function emittersSince(findings: Findings, at: number): Set<string> {
  const emits = [...accepted(findings, "balanced"), ...accepted(findings, "broadcast")];
  return new Set(emits.filter(({ startedAt }) => startedAt >= at).map(({ node }) => node));
}

/** Names of the nodes that have heard a broadcast that was emitted since. */
export function hearersSince(findings: Findings, at: number): Set<string> {
  const emitted = new Set(accepted(findings, "broadcast").filter(({ startedAt }) => startedAt >= at).map(({ node, seq }) => idOf({ emitter: node, seq })));
  return new Set(findings.history.all("heard").filter((heard) => emitted.has(idOf(heard))).map(({ node }) => node));
}
