import { accepted, effectsOf } from "../checks.js";
import { idOf } from "../history.js";
import type { Scenario, Trial } from "../trial.js";

/** Transactions are short: a round may find none. */
const MOST_ROUNDS = 60;

export const transactions: Scenario = {
  name: "transactions",
  promise: "what a transaction emits arrives once where it commits, never where it does not, with backends terminated in the middle",
  async run(trial) {
    await trial.cluster.start(3);
    await trial.cluster.load({ transactions: 40 });
    for (let round = 0; round < trial.size(6, 30) || (!wasHit(trial) && round < MOST_ROUNDS); round++) {
      await trial.pause(150, 500);
      await trial.terminate("backends in transactions", "state <> 'idle'", 3);
    }
    if (!trial.quick) await trial.restartPostgres("immediate");
    await trial.pause(500);
    await trial.settle();
    checkAtomicity(trial);
  },
};

function wasHit(trial: Trial): boolean {
  return trial.history.all("emit").some(({ error }) => error !== null && error !== "ROLLED_BACK");
}

/** A mark is a row of the transaction itself: it tells what has committed, also where the caller got an error. */
function checkAtomicity(trial: Trial): void {
  const marks = effectsOf(trial, "mark");
  const effects = effectsOf(trial, "transaction");
  const emits = trial.history.all("emit");
  const idsOf = (list: typeof emits): string[] => list.map(({ node, seq }) => idOf({ emitter: node, seq }));
  trial.none(idsOf(accepted(trial, "transaction")).filter((id) => !marks.has(id)), "transactions that said they had committed, and had not");
  trial.none(idsOf(emits.filter(({ error }) => error === "ROLLED_BACK")).filter((id) => marks.has(id)), "transactions that were rolled back, and committed");
  trial.none([...marks.keys()].filter((id) => !effects.has(id)), "events of committed transactions that never arrived");
  trial.none([...effects.keys()].filter((id) => !marks.has(id)), "events of transactions that did not commit");
  trial.none([...effects.values()].filter(({ length }) => length > 1), "events of transactions with more than one effect");
  trial.check(marks.size > 0, "no transaction committed");
  trial.check(wasHit(trial), "no transaction was hit by a fault");
}
