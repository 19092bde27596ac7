import type { Findings } from "../findings.js";

/** Share of the load that may be left out where the machine does not let nodes run. */
const MOST_OMITTED = 0.01;

export interface Rates {
  readonly calls: number;
  readonly events: number;
}

/** A history says nothing of load that was not made. Nodes that a fault freezes make none meanwhile. */
export function checkOmissions(findings: Findings): void {
  const { history, frozen } = findings;
  const omitted = history.all("omission").reduce((sum, { node, operations }) => (frozen.includes(node) ? sum : sum + operations), 0);
  const made = history.all("call").length + history.all("query").length + history.all("emit").length;
  findings.check(omitted <= MOST_OMITTED * made, `${Math.round(omitted)} operations were left out, beside ${made} that were made`);
}

/** In each of these times so many calls and events a second began, on all nodes together. */
export function checkRates(findings: Findings, times: readonly (readonly [number, number])[], least: Rates): void {
  const { history } = findings;
  const rate = (operations: readonly { readonly startedAt: number }[], from: number, to: number): number =>
    (operations.filter(({ startedAt }) => startedAt >= from && startedAt < to).length * 1_000) / findings.took(from, to);
  const rates = times.map(([from, to]) => ({ calls: rate(history.all("call"), from, to), events: rate(history.all("emit"), from, to) }));
  const low = rates.filter(({ calls, events }) => calls < least.calls || events < least.events);
  findings.check(times.length > 0, "there was no time to make load in");
  findings.none(
    low.map(({ calls, events }) => `${Math.floor(calls)} calls/s and ${Math.floor(events)} events/s`),
    `times with less load than ${least.calls} calls/s and ${least.events} events/s`,
  );
}
