import { checkCalls, checkEmits, checkExactlyOnce } from "../checks.js";
import { NOTICE_MS, callsUntilKilled, checkInFlight, checkOrphans, checkRouting, checkTakeover, type Kill } from "../checks/kills.js";
import { until } from "../../support/wait.js";
import { LEASE_MS } from "../protocol.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

const CALL_LIMIT_MS = 5_000;
/** So long that some are under way on every node at any time. */
const CALL_MS = 200;

export const killed: Scenario = {
  name: "killed",
  promise: "SIGKILL: only calls in flight on it fail, at once; the others go elsewhere; its jobs run elsewhere within leaseMs + 1 s",
  async run(trial) {
    const { cluster, random } = trial;
    await cluster.start(3);
    const kills: Kill[] = [];
    for (let round = 0; round < trial.size(1, 5); round++) {
      await cluster.load({ calls: 100, balanced: 12, jobMs: 200, workMs: CALL_MS, timeoutMs: CALL_LIMIT_MS });
      await trial.pause(700, 1_400);
      const victim = random.pick(cluster.nodes);
      const survivors = cluster.nodes.filter((node) => node !== victim);
      await until(() => holdsJob(trial, victim), { message: `${victim.name} holds a job` });
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

async function holdsJob(trial: Trial, { nodeId }: FaultNode): Promise<boolean> {
  const jobs = await trial.query("SELECT FROM _chimpbase_mesh_claims WHERE holder = $1 LIMIT 1", [nodeId]);
  return jobs.length > 0;
}
