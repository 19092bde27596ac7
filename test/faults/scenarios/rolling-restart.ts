import { callsOf, checkBroadcasts, checkCalls, checkExactlyOnce } from "../checks.js";
import { now } from "../history.js";
import type { Listening } from "../checks.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

/** Of each of three nodes: over 500 calls and 200 events a second in all. */
const LOAD = { calls: 170, balanced: 50, jobMs: 30, broadcasts: 20 };
const EXIT_LIMIT_MS = 5_000;
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
    for (let round = 0; round < trial.size(1, 10); round++) {
      for (const leaver of cluster.nodes) {
        await cluster.load(LOAD);
        await trial.pause(300, 600);
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
  trial.fault(`SIGTERM ${leaver.name}`);
  leaver.signal("SIGTERM");
  await leaver.leave();
  await trial.within(EXIT_LIMIT_MS, `${leaver.name} ends after SIGTERM`, () => !leaver.running);
  await trial.cluster.add();
}
