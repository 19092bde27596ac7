import { checkAtomicity, wasHit } from "../checks/transactions.js";
import type { Scenario } from "../trial.js";

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
    await trial.settle();
    checkAtomicity(trial);
  },
};
