import { accepted, callsOf, checkCalls, checkExactlyOnce, effectsOf, failed, retried } from "../checks.js";
import { until } from "../../support/wait.js";
import { idOf } from "../history.js";
import { LEASE_MS } from "../protocol.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

/** From the kill until every caller has seen its connection break, through a proxy, on a machine that is busy. */
const NOTICE_MS = 250;
const CALL_LIMIT_MS = 5_000;
/** So long that some are under way on every node at any time. */
const CALL_MS = 200;
/** Between the kill as the harness sees it and the clock of Postgres. */
const AUDIT_SLACK_MS = 150;

export const killed: Scenario = {
  name: "killed",
  promise: "SIGKILL: only calls in flight on it fail, at once; the others go elsewhere; its jobs run elsewhere within leaseMs + 1 s",
  async run(trial) {
    const { cluster, random } = trial;
    await cluster.start(3);
    const kills: { at: number; victim: FaultNode; survivors: FaultNode[] }[] = [];
    for (let round = 0; round < trial.size(1, 5); round++) {
      await cluster.load({ calls: 100, balanced: 20, jobMs: 200, workMs: CALL_MS, timeoutMs: CALL_LIMIT_MS });
      await trial.pause(700, 1_400);
      const victim = random.pick(cluster.nodes);
      const survivors = cluster.nodes.filter((node) => node !== victim);
      await until(() => holdsJob(trial, victim), { message: `${victim.name} holds a job` });
      kills.push({ at: trial.fault(`SIGKILL ${victim.name}`), victim, survivors });
      await victim.kill();
      await trial.pause(LEASE_MS + 200);
      await cluster.add();
    }
    await trial.settle();
    checkExactlyOnce(trial);
    for (const { at, victim, survivors } of kills) {
      checkInFlight(trial, at, victim, survivors);
      checkTakeover(trial, at);
    }
    const orphans = kills.flatMap(({ at, victim }) => orphansOf(trial, victim, at));
    trial.check(orphans.length > 0, "no node that was killed held a job");
    trial.none(orphans.filter(({ at, takenAt }) => trial.took(at, takenAt) > LEASE_MS + AUDIT_SLACK_MS), "jobs that were taken over later than leaseMs");
    checkCalls(trial, callsOf(trial, cluster.nodes), kills.map(({ at }) => [at, at + NOTICE_MS]));
  },
};

async function holdsJob(trial: Trial, { nodeId }: FaultNode): Promise<boolean> {
  const jobs = await trial.query("SELECT FROM _chimpbase_mesh_jobs WHERE holder = $1 LIMIT 1", [nodeId]);
  return jobs.length > 0;
}

/** Jobs that the node held when it was killed, and when others took them from it, as Postgres saw it. */
function orphansOf(trial: Trial, { nodeId }: FaultNode, at: number): { at: number; takenAt: number }[] {
  const steps = trial.history.all("transition");
  const held = new Map<string, boolean>();
  for (const step of steps) {
    if (step.at > at) break;
    if (step.change === "claim") held.set(step.job, step.successor === nodeId);
    else if (step.change !== "extend") held.delete(step.job);
  }
  const takenAt = (job: string): number => steps.find((step) => step.job === job && step.at > at && step.change === "release")?.at ?? Infinity;
  return [...held].filter(([, byVictim]) => byVictim).map(([job]) => ({ at, takenAt: takenAt(job) }));
}

/** Those without retries that were on it fail, at once and retryable; no other does. */
function checkInFlight(trial: Trial, at: number, victim: FaultNode, survivors: readonly FaultNode[]): void {
  const plain = callsOf(trial, survivors).filter((call) => !retried(call) && call.startedAt <= at + NOTICE_MS && call.endedAt >= at);
  const broken = plain.filter(failed);
  trial.check(broken.length > 0, "no call was under way on a node that was killed");
  trial.none(broken.filter(({ failedOn }) => failedOn !== victim.nodeId), "calls to other nodes that failed with a kill");
  trial.none(broken.filter(({ endedAt }) => trial.took(at, endedAt) > NOTICE_MS), "calls that hung on a killed node");
  trial.none(broken.filter(({ error }) => !error!.startsWith("CALL_FAILED")), "calls that a kill failed with another error");
  trial.none(broken.filter(({ retryable }) => retryable !== true), "calls that a kill failed for good");
}

function checkTakeover(trial: Trial, at: number): void {
  const effects = effectsOf(trial, "balanced");
  const pending = accepted(trial, "balanced").filter(({ endedAt }) => endedAt <= at);
  const ranAt = (node: string, seq: number): number => effects.get(idOf({ emitter: node, seq }))?.[0]?.at ?? at;
  const late = pending.filter(({ node, seq }) => trial.took(at, ranAt(node, seq)) > LEASE_MS + 1_000);
  trial.none(late, "jobs of a killed node that ran too late");
}
