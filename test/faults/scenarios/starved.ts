import { setTimeout as sleep } from "node:timers/promises";
import { callsOf, checkBroadcasts, checkCalls, checkEmits, checkExactlyOnce, checkQueries, listeningThroughout } from "../checks.js";
import { QUERY_LIMIT_MS } from "../protocol.js";
import type { Scenario, Trial } from "../trial.js";

/** Longer than lease and offlineAfter. */
const TROUBLE_MS = 1_800;
const DELAY_MS = 120;
const LOOK_MS = 100;
const SLACK_MS = 400;

export const starved: Scenario = {
  name: "starved",
  promise: "a full pool, a slow link to Postgres, a Postgres that hangs: no peer expires by mistake, calls go on, what needs the database fails clearly and in time",
  async run(trial) {
    const nodes = await trial.cluster.start(3);
    await trial.cluster.load({ calls: 60, balanced: 15, broadcasts: 10, queries: 20, jobMs: 50 });
    for (let round = 0; round < trial.size(1, 2); round++) {
      for (const fault of trial.random.shuffled([fullPool, slowLink, frozenPostgres]).slice(0, trial.size(1, 3))) {
        await trial.pause(300, 600);
        await withStablePeers(trial, fault);
      }
    }
    await trial.settle();
    checkCalls(trial, callsOf(trial, nodes), []);
    checkQueries(trial, QUERY_LIMIT_MS, SLACK_MS);
    checkEmits(trial);
    checkExactlyOnce(trial);
    await checkBroadcasts(trial, listeningThroughout(nodes));
  },
};

/** While the fault lasts, and a little after it, no node may lose sight of another. */
async function withStablePeers(trial: Trial, fault: (trial: Trial) => Promise<void>): Promise<void> {
  let over = false;
  let losses = 0;
  const look = async (): Promise<void> => {
    for (; !over; await sleep(LOOK_MS)) if (!(await trial.cluster.agrees())) losses++;
  };
  const strike = async (): Promise<void> => {
    try {
      await fault(trial);
      trial.over();
      await trial.pause(500);
    } finally {
      over = true;
    }
  };
  await Promise.all([look(), strike()]);
  trial.check(losses === 0, `nodes lost sight of peers that were there, at ${losses} looks`);
}

async function fullPool(trial: Trial): Promise<void> {
  const victim = trial.random.pick(trial.cluster.nodes);
  trial.fault(`all connections of ${victim.name} in use for ${TROUBLE_MS} ms`);
  await victim.do("hog", TROUBLE_MS);
}

async function slowLink(trial: Trial): Promise<void> {
  const victim = trial.random.pick(trial.cluster.nodes);
  trial.fault(`${DELAY_MS} ms each way between ${victim.name} and Postgres`);
  victim.postgres.delay(DELAY_MS);
  await trial.pause(TROUBLE_MS);
  victim.postgres.heal();
}

async function frozenPostgres(trial: Trial): Promise<void> {
  trial.fault(`Postgres hangs for ${TROUBLE_MS} ms`);
  await trial.postgres.freeze(TROUBLE_MS);
}
