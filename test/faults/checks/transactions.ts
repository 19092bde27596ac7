import { accepted, effectsOf, type Named } from "../checks.js";
import { idOf } from "../history.js";
import type { Findings } from "../findings.js";

/** A transaction failed, and not by its handler's own will. */
export function wasHit(findings: Findings): boolean {
  return findings.history.all("emit").some(({ event, error }) => event === "transaction" && error !== null && error !== "ROLLED_BACK");
}

/** What a committed transaction leads to, once: a balanced event, a job, and the event that the handler of the first one emits in its own transaction. */
const OUTCOMES = ["transaction", "job", "follow-up"] as const;

/** Broadcasts of committed transactions that the node has not heard. */
export function unheard(findings: Findings, { name }: Named): string[] {
  const got = new Set(heardBy(findings, name));
  return [...effectsOf(findings, "mark").keys()].filter((id) => !got.has(id));
}

/** A mark is a row of the transaction itself: it tells what has committed, also where the caller got an error. */
export function checkAtomicity(findings: Findings, nodes: readonly Named[]): void {
  const marks = effectsOf(findings, "mark");
  const emits = findings.history.all("emit").filter(({ event }) => event === "transaction");
  const idsOf = (list: typeof emits): string[] => list.map(({ node, seq }) => idOf({ emitter: node, seq }));
  findings.none(idsOf(accepted(findings, "transaction")).filter((id) => !marks.has(id)), "transactions that said they had committed, and had not");
  findings.none(idsOf(emits.filter(({ error }) => error === "ROLLED_BACK")).filter((id) => marks.has(id)), "transactions that were rolled back, and committed");
  findings.none([...marks].filter(([, { length }]) => length > 1).map(([id]) => id), "transactions that committed more than once");
  for (const outcome of OUTCOMES) {
    const effects = [...effectsOf(findings, outcome)].flatMap(([id, { length }]) => Array.from({ length }, () => id));
    checkOutcomes(findings, outcome, effects, new Set(marks.keys()));
  }
  for (const { name } of nodes) checkOutcomes(findings, `broadcast on ${name}`, heardBy(findings, name), new Set(marks.keys()));
  findings.check(marks.size > 0, "no transaction committed");
  findings.check(wasHit(findings), "no transaction was hit by a fault");
}

/** Exactly those of transactions that committed, each once. */
function checkOutcomes(findings: Findings, what: string, got: readonly string[], committed: ReadonlySet<string>): void {
  const once = new Set(got);
  findings.none([...committed].filter((id) => !once.has(id)), `committed transactions whose ${what} never came`);
  findings.none([...once].filter((id) => !committed.has(id)), `transactions whose ${what} came, and that did not commit`);
  findings.check(got.length === once.size, `${got.length - once.size} times a ${what} of a transaction came once more`);
}

function heardBy({ history }: Findings, name: string): string[] {
  return history.all("heard").filter(({ event, node }) => event === "transaction" && node === name).map(idOf);
}
