import { checkBroadcasts, checkEmits, listeningThroughout } from "../checks.js";
import { checkResyncs, isTold } from "../checks/resyncs.js";
import { now } from "../history.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

const RETENTION_MS = 1_500;
const SHORT_MS = 500;
const LONG_MS = 2_800;
const CAUGHT_UP_MS = 3_000;

export const retention: Scenario = {
  name: "retention",
  promise: "a node away for less than the retention misses no broadcast; one away for longer is told to resync, and misses none after that",
  async run(trial) {
    const nodes = await trial.cluster.start(3, { retentionMs: RETENTION_MS });
    const victim = trial.random.pick(nodes);
    const others = nodes.filter((node) => node !== victim);
    trial.frozen.push(victim.name);
    await trial.cluster.load({ kept: 40 }, others);
    for (let round = 0; round < trial.size(1, 3); round++) await freeze(trial, victim, SHORT_MS);
    const longFrom = now();
    const awayFrom = await freeze(trial, victim, LONG_MS);
    const wokeAt = now();
    await Promise.all([trial.converge(), trial.within(CAUGHT_UP_MS, "the node is told to resync", () => isTold(trial, victim.name, awayFrom))]);
    await trial.settle();
    const missed = [{ node: victim, from: 0, to: longFrom }, { node: victim, from: wokeAt, to: Infinity }];
    await checkBroadcasts(trial, [...listeningThroughout(others), ...missed], "kept");
    checkEmits(trial);
    checkResyncs(trial, victim.name, awayFrom);
  },
};

/** Resolves with the time at which it froze. */
async function freeze(trial: Trial, victim: FaultNode, ms: number): Promise<number> {
  await trial.pause(trial.size(300, 600), trial.size(500, 1_000));
  const frozenAt = trial.fault(`SIGSTOP ${victim.name} for ${ms} ms`);
  victim.signal("SIGSTOP");
  await trial.pause(ms);
  victim.signal("SIGCONT");
  trial.fault(`SIGCONT ${victim.name}`);
  return frozenAt;
}
