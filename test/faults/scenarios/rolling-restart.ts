import { callsOf, checkBroadcasts, checkCalls, checkEmits, checkExactlyOnce } from "../checks.js";
import { checkRates } from "../checks/load.js";
import { now } from "../history.js";
import type { Listening } from "../checks.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

/** Of each node: two of them make the least rates while the third is away. */
const LOAD = { calls: 270, balanced: 50, jobMs: 30, broadcasts: 60 };
const LEAST = { calls: 500, events: 200 };
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
    const stops: (readonly [number, number])[] = [];
    for (let round = 0; round < trial.size(1, 10); round++) {
      for (const leaver of cluster.nodes.slice(0, trial.size(2, 3))) {
        await cluster.load(LOAD);
        await trial.pause(trial.size(200, 300), trial.size(300, 600));
        callers.push(leaver);
        listening.set(leaver, { ...listening.get(leaver)!, to: now() - LAST_MOMENT_MS });
        stops.push(await replace(trial, leaver));
        open(cluster.nodes.at(-1)!);
      }
    }
    callers.push(...cluster.nodes);
    await trial.settle();
    checkRates(trial, stops, LEAST);
    checkCalls(trial, callsOf(trial, callers), []);
    trial.none(trial.history.all("emit").filter(({ error }) => error !== null), "failed emits");
    checkEmits(trial);
    checkExactlyOnce(trial);
    await checkBroadcasts(trial, [...listening.values()]);
  },
};

/** Its own load ends first, as that of a process does which is about to stop; that of the others goes on. Resolves with the times of SIGTERM and of its heir's start. */
async function replace(trial: Trial, leaver: FaultNode): Promise<readonly [number, number]> {
  await leaver.do("quiet");
  const from = trial.fault(`SIGTERM ${leaver.name}`);
  leaver.signal("SIGTERM");
  await leaver.leave();
  await trial.within(EXIT_LIMIT_MS, `${leaver.name} ends after SIGTERM`, () => !leaver.running);
  await trial.cluster.add();
  return [from, trial.over()];
}
