import { checkEmits, checkExactlyOnce } from "../checks.js";
import type { Scenario, Trial } from "../trial.js";

export const exactlyOnce: Scenario = {
  name: "exactly-once",
  promise: "every accepted balanced event has its database effect exactly once in each group, under kills, stops and restarts of Postgres",
  async run(trial) {
    await trial.cluster.start(3);
    const faults = [kill, stop, fastRestart, crash, terminateSome];
    for (let round = 0; round < trial.size(1, 3); round++) {
      for (const fault of trial.random.shuffled(faults).slice(0, trial.size(3, faults.length))) {
        await trial.cluster.load({ balanced: 8, jobMs: 400 });
        await trial.pause(200, 900);
        await fault(trial);
      }
    }
    await trial.settle();
    checkExactlyOnce(trial);
    checkEmits(trial, true);
  },
};

async function kill(trial: Trial): Promise<void> {
  const victim = trial.random.pick(trial.cluster.nodes);
  const killedAt = trial.fault(`SIGKILL ${victim.name}`);
  trial.killed(killedAt);
  await victim.kill();
  await trial.cluster.add();
  trial.over();
}

/** Under its own load: emits that come too late for it fail. */
async function stop(trial: Trial): Promise<void> {
  const leaver = trial.random.pick(trial.cluster.nodes);
  trial.fault(`stop ${leaver.name}`);
  await leaver.do("stop");
  await leaver.do("quiet");
  await leaver.kill();
  await trial.cluster.add();
  trial.over();
}

const fastRestart = (trial: Trial): Promise<void> => trial.restartPostgres("fast", trial.random.between(0, 500));
const crash = (trial: Trial): Promise<void> => trial.restartPostgres("immediate", trial.random.between(0, 500));
const terminateSome = (trial: Trial): Promise<void> => trial.terminate("backends in transactions", "state <> 'idle'", 5);
