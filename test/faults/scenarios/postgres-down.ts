import { checkBroadcasts, checkEmits, checkExactlyOnce, failed, listeningThroughout } from "../checks.js";
import { callRate, checkRate, emittersSince, hearersSince } from "../checks/recovery.js";
import { now } from "../history.js";
import { GROUPS } from "../protocol.js";
import type { Scenario, Trial } from "../trial.js";

const BACK_LIMIT_MS = 5_000;
/** A second, on each node. */
const CALLS = 100;

export const postgresDown: Scenario = {
  name: "postgres-down",
  promise: "Postgres away: calls between known peers go on, emits fail clearly or wait, all is back within 5 s, nothing accepted is lost",
  async run(trial) {
    const { cluster, postgres, random } = trial;
    const nodes = await cluster.start(3);
    await cluster.load({ calls: CALLS, balanced: 20, broadcasts: 20 });
    await trial.pause(500);
    // A node that has fallen behind at its start makes up for it: more than what is asked for is no rate to keep.
    const baseline = Math.min(nodes.length * CALLS, await nextRate(trial, trial.size(1_000, 2_000)));
    const mode = random.pick(["fast", "immediate"] as const);
    trial.fault(`Postgres down (${mode})`);
    await postgres.stop(mode);
    const duringOutage = await nextRate(trial, trial.size(2_500, 20_000));
    await postgres.start();
    const upAt = trial.fault("Postgres up");
    await Promise.all([trial.converge(), trial.within(BACK_LIMIT_MS, "all nodes emit again, hear broadcasts, run jobs of each group and know each other", () => isBack(trial, upAt))]);
    await trial.settle();
    checkRate(trial, baseline, duringOutage);
    trial.none(trial.history.all("call").filter(failed), "failed calls");
    checkEmits(trial);
    checkExactlyOnce(trial);
    await checkBroadcasts(trial, listeningThroughout(nodes));
  },
};

/** Calls a second that come back, over the next `ms`. */
async function nextRate(trial: Trial, ms: number): Promise<number> {
  const from = now();
  await trial.pause(ms);
  return callRate(trial, from, now());
}

/** With what was emitted since `upAt`. */
async function isBack(trial: Trial, upAt: number): Promise<boolean> {
  if (emittersSince(trial, upAt).size < 3 || hearersSince(trial, upAt).size < 3 || !(await trial.cluster.agrees())) return false;
  const workers = await trial.query("SELECT DISTINCT node, grp FROM effects WHERE extract(epoch FROM at) * 1000 > $1", [upAt]);
  return workers.length === 3 * GROUPS.length;
}
