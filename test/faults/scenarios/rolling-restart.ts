import { callsOf, checkBroadcasts, checkCalls, checkExactlyOnce } from "../checks.js";
import { now } from "../history.js";
import type { Listening } from "../checks.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

const LOAD = { calls: 100, balanced: 30, jobMs: 50, broadcasts: 20 };
/** What is emitted in the last moment before a node stops may miss it. */
const LAST_MOMENT_MS = 200;

export const rollingRestart: Scenario = {
  name: "rolling-restart",
  promise: "rolling restart under load: no failed call, no failed or lost event, no job twice in effect",
  async run(trial) {
    const { cluster } = trial;
    const listening = new Map<FaultNode, Listening>();
    const open = (node: FaultNode): unknown => listening.set(node, { node, from: now(), to: Infinity });
    (await cluster.start(3)).forEach(open);
    const callers: FaultNode[] = [];
    for (let round = 0; round < trial.size(1, 3); round++) {
      for (const leaver of cluster.nodes) {
        await cluster.load(LOAD);
        await trial.pause(500, 900);
        callers.push(leaver);
        listening.set(leaver, { ...listening.get(leaver)!, to: now() - LAST_MOMENT_MS });
        await replace(trial, leaver);
        open(cluster.nodes.at(-1)!);
      }
    }
    callers.push(...cluster.nodes);
    await trial.settle();
    checkCalls(trial, callsOf(trial, callers), []);
    trial.none(trial.history.all("emit").filter(({ error }) => error !== null), "failed emits");
    checkExactlyOnce(trial);
    await checkBroadcasts(trial, [...listening.values()]);
  },
};

/** Its own load ends first, as that of a process does which is about to stop; that of the others goes on. */
async function replace(trial: Trial, leaver: FaultNode): Promise<void> {
  await leaver.do("quiet");
  trial.fault(`restart ${leaver.name}`);
  await leaver.do("stop");
  await leaver.do("quiet");
  await leaver.kill();
  await trial.cluster.add();
}
