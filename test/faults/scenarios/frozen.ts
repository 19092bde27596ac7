import { callsOf, checkCalls, checkEmits, checkExactlyOnce } from "../checks.js";
import { hasLostJob } from "../checks/kills.js";
import { now } from "../history.js";
import { OFFLINE_AFTER_MS } from "../protocol.js";
import type { Scenario, Trial } from "../trial.js";

const CALL_LIMIT_MS = 600;
/** Of each node before the load: the first calls of a process take so long on a busy machine that their retries would come too late. */
const WARM_UP_CALLS = 200;
/** For measuring from outside, over three processes that are busy. */
const SLACK_MS = 400;
/** Shorter and longer than lease and offlineAfter. */
const SHORT_MS = 700;
const LONG_MS = [2_500, 3_500] as const;

export const frozen: Scenario = {
  name: "frozen",
  promise: "SIGSTOP: routed around after one timeout, out of peers() within offlineAfterMs; awake again it completes no job it has lost",
  async run(trial) {
    const { cluster } = trial;
    const nodes = await cluster.start(3);
    const victim = trial.random.pick(nodes);
    trial.frozen.push(victim.name);
    const others = nodes.filter((node) => node !== victim);
    await Promise.all(nodes.map((node) => node.do("exercise", WARM_UP_CALLS)));
    await cluster.load({ calls: 100, balanced: 12, jobMs: 300, timeoutMs: CALL_LIMIT_MS });
    const troubles: (readonly [number, number])[] = [];
    let frozenForLongAt = Infinity;
    const longMs = trial.size(...LONG_MS);
    for (const length of trial.quick ? [longMs] : [SHORT_MS, longMs, SHORT_MS, longMs]) {
      await trial.pause(trial.size(500, 800), trial.size(700, 1_200));
      const frozenAt = trial.fault(`SIGSTOP ${victim.name} for ${length} ms`);
      troubles.push([frozenAt, frozenAt + CALL_LIMIT_MS + 100]);
      victim.signal("SIGSTOP");
      if (length === longMs) frozenForLongAt = Math.min(frozenForLongAt, frozenAt);
      if (length === longMs) await checkDropped(trial, () => cluster.agrees(others));
      await trial.pause(frozenAt + length - now());
      victim.signal("SIGCONT");
      trial.fault(`SIGCONT ${victim.name}`);
      await trial.converge();
    }
    await trial.settle();
    checkEmits(trial);
    checkExactlyOnce(trial);
    trial.check(hasLostJob(trial, victim, frozenForLongAt), "the node that froze has lost no job");
    checkCalls(trial, callsOf(trial, others), troubles);
  },
};

async function checkDropped(trial: Trial, dropped: () => Promise<boolean>): Promise<void> {
  await trial.within(OFFLINE_AFTER_MS + SLACK_MS, "a frozen node leaves peers()", dropped);
}
