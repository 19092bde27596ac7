import { RECENT_CLAIM_SQL } from "../audit.js";
import { checkCalls, checkEmits, checkExactlyOnce } from "../checks.js";
import { NOTICE_MS, callsUntilKilled, checkInFlight, checkOrphans, checkRouting, checkTakeover, type Kill } from "../checks/kills.js";
import { until } from "../../support/wait.js";
import { LEASE_MS } from "../protocol.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

const CALL_LIMIT_MS = 5_000;
/** So long that some are under way on every node at any time. */
const CALL_MS = 200;
const JOB_MS = 200;

export const killed: Scenario = {
  name: "killed",
  promise: "SIGKILL: only calls in flight on it fail, at once; the others go elsewhere; its jobs run elsewhere within leaseMs + 1 s",
  async run(trial) {
    const { cluster, random } = trial;
    await cluster.start(3);
    const kills: Kill[] = [];
    for (let round = 0; round < trial.size(1, 5); round++) {
      await cluster.load({ calls: 100, balanced: 12, jobMs: JOB_MS, workMs: CALL_MS, timeoutMs: CALL_LIMIT_MS });
      await trial.pause(700, 1_400);
      const victim = random.pick(cluster.nodes);
      const survivors = cluster.nodes.filter((node) => node !== victim);
      await until(() => hasJustClaimed(trial, victim), { message: `${victim.name} has just claimed a job` });
      kills.push({ at: trial.fault(`SIGKILL ${victim.name}`), victim, survivors });
      await victim.kill();
      await trial.pause(LEASE_MS + 200);
      await cluster.add();
      trial.over();
    }
    await trial.settle();
    checkEmits(trial);
    checkExactlyOnce(trial);
    for (const kill of kills) {
      checkInFlight(trial, kill);
      checkRouting(trial, kill, CALL_MS);
      checkTakeover(trial, kill);
    }
    checkOrphans(trial, kills);
    checkCalls(trial, callsUntilKilled(trial, cluster.started, kills), kills.map(({ at }) => [at, at + NOTICE_MS]));
  },
};

/** So that it still holds the job when it is killed. */
async function hasJustClaimed(trial: Trial, { nodeId }: FaultNode): Promise<boolean> {
  const claims = await trial.query(RECENT_CLAIM_SQL, [nodeId, JOB_MS / 4]);
  return claims.length > 0;
}
