import { accepted, effectsOf } from "../checks.js";
import { idOf } from "../history.js";
import type { Findings } from "../findings.js";

/** A transaction failed, and not by its handler's own will. */
export function wasHit(findings: Findings): boolean {
  return findings.history.all("emit").some(({ event, error }) => event === "transaction" && error !== null && error !== "ROLLED_BACK");
}

/** A mark is a row of the transaction itself: it tells what has committed, also where the caller got an error. */
export function checkAtomicity(findings: Findings): void {
  const marks = effectsOf(findings, "mark");
  const effects = effectsOf(findings, "transaction");
  const emits = findings.history.all("emit").filter(({ event }) => event === "transaction");
  const idsOf = (list: typeof emits): string[] => list.map(({ node, seq }) => idOf({ emitter: node, seq }));
  findings.none(idsOf(accepted(findings, "transaction")).filter((id) => !marks.has(id)), "transactions that said they had committed, and had not");
  findings.none(idsOf(emits.filter(({ error }) => error === "ROLLED_BACK")).filter((id) => marks.has(id)), "transactions that were rolled back, and committed");
  findings.none([...marks].filter(([, { length }]) => length > 1).map(([id]) => id), "transactions that committed more than once");
  findings.none([...marks.keys()].filter((id) => !effects.has(id)), "events of committed transactions that never arrived");
  findings.none([...effects.keys()].filter((id) => !marks.has(id)), "events of transactions that did not commit");
  findings.none([...effects.values()].filter(({ length }) => length > 1), "events of transactions with more than one effect");
  findings.check(marks.size > 0, "no transaction committed");
  findings.check(wasHit(findings), "no transaction was hit by a fault");
}
