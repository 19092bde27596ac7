import { checkBroadcasts, checkEmits, checkExactlyOnce, checkPunctuality, listeningThroughout } from "../checks.js";
import type { Link } from "../link.js";
import type { Scenario, Trial } from "../trial.js";

/** After being accepted, with a fault of up to 1.5 s in between. */
const LATE_MS = 6_000;

export const broadcasts: Scenario = {
  name: "broadcasts",
  promise: "every subscribed node gets every accepted broadcast once, in order of its emitter, across lost connections and restarts of Postgres",
  async run(trial) {
    const nodes = await trial.cluster.start(3);
    await trial.cluster.load({ broadcasts: 60, balanced: 15, jobMs: 50 });
    const faults = [terminateListen, terminateIdle, cutLink, blackHole, halfOpen, fastRestart, crash];
    for (let round = 0; round < trial.size(1, 3); round++) {
      for (const fault of trial.random.shuffled(faults).slice(0, trial.size(3, faults.length))) {
        await trial.pause(200, 900);
        await fault(trial);
      }
    }
    await trial.settle();
    await checkBroadcasts(trial, listeningThroughout(nodes));
    checkPunctuality(trial, LATE_MS);
    checkEmits(trial);
    checkExactlyOnce(trial);
    trial.check(trial.history.all("heard").length > 0, "no broadcast was heard");
  },
};

const terminateListen = (trial: Trial): Promise<void> => trial.terminate("LISTEN backends", "query ILIKE '%listen%'");
const terminateIdle = (trial: Trial): Promise<void> => trial.terminate("idle backends", "state = 'idle'", 10);
const fastRestart = (trial: Trial): Promise<void> => trial.restartPostgres("fast", trial.random.between(0, 1_000));
const crash = (trial: Trial): Promise<void> => trial.restartPostgres("immediate", trial.random.between(0, 1_000));

async function cutLink(trial: Trial): Promise<void> {
  const victim = trial.random.pick(trial.cluster.nodes);
  trial.fault(`cut ${victim.name} from Postgres`);
  victim.postgres.drop();
  await trial.pause(100, 800);
  victim.postgres.heal();
  trial.over();
}

const blackHole = (trial: Trial): Promise<void> => silence(trial, "black hole", (link) => link.blackHole());
/** What is sent there is done, and no answer comes. */
const halfOpen = (trial: Trial): Promise<void> => silence(trial, "half-open", (link) => link.halfOpen());

async function silence(trial: Trial, what: string, strike: (link: Link) => void): Promise<void> {
  const victim = trial.random.pick(trial.cluster.nodes);
  trial.fault(`${what} between ${victim.name} and Postgres`);
  strike(victim.postgres);
  await trial.pause(500, 1_500);
  victim.postgres.heal();
  trial.over();
}
