import { checkEmits } from "../checks.js";
import { checkAtomicity, unheard, wasHit } from "../checks/transactions.js";
import type { Scenario } from "../trial.js";

/** Transactions are short: a round may find none. */
const MOST_ROUNDS = 60;
const ARRIVAL_LIMIT_MS = 5_000;

export const transactions: Scenario = {
  name: "transactions",
  promise: "what a transaction emits and enqueues arrives once where it commits, never where it does not, with backends terminated in the middle",
  async run(trial) {
    const nodes = await trial.cluster.start(3);
    await trial.cluster.load({ transactions: 40 });
    for (let round = 0; round < trial.size(4, 30) || (!wasHit(trial) && round < MOST_ROUNDS); round++) {
      await trial.pause(150, 500);
      await trial.terminate("backends in transactions", "state <> 'idle'", 3);
    }
    if (!trial.quick) await trial.restartPostgres("immediate");
    await trial.settle();
    await trial.within(ARRIVAL_LIMIT_MS, "broadcasts of committed transactions are on their way", () => nodes.every((node) => unheard(trial, node).length === 0));
    checkEmits(trial);
    checkAtomicity(trial, nodes);
  },
};
