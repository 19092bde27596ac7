import { setTimeout as sleep } from "node:timers/promises";
import { callsOf, checkCalls, checkEmits } from "../checks.js";
import { checkGrowth } from "../checks/overload.js";
import type { FaultNode } from "../cluster.js";
import type { Memory } from "../protocol.js";
import type { Scenario, Trial } from "../trial.js";

const MOST_GROWTH = 5 * 1024 * 1024;
const ARRIVAL_LIMIT_MS = 30_000;
const EXIT_LIMIT_MS = 3_000;

export const leftovers: Scenario = {
  name: "leftovers",
  promise: "many calls and events leave the heap as it was; after stop no row, connection, socket or process is left",
  async run(trial) {
    const { cluster } = trial;
    const nodes = await cluster.start(3);
    await cluster.load({ calls: 100, balanced: 20, broadcasts: 20 });
    await trial.pause(trial.size(2_000, 4_000));
    await trial.settle();
    checkCalls(trial, callsOf(trial, nodes), []);
    checkEmits(trial);
    await checkHeap(trial, nodes);
    trial.fault("stop of all nodes");
    await Promise.all(nodes.map((node) => checkEnd(trial, node)));
    await checkDatabase(trial);
  },
};

/** Each node calls the others and is called by them, and gets the events of all. */
async function checkHeap(trial: Trial, nodes: readonly FaultNode[]): Promise<void> {
  const before = await exercise(trial, nodes, trial.size(400, 10_000));
  const after = await exercise(trial, nodes, trial.size(1_000, 50_000));
  const grown = after.map(({ heapUsed }, index) => heapUsed - before[index]!.heapUsed);
  checkGrowth(trial, "the heap", grown, MOST_GROWTH);
}

async function exercise(trial: Trial, nodes: readonly FaultNode[], rounds: number): Promise<Memory[]> {
  const before = await come(nodes);
  await Promise.all(nodes.map((node) => node.do("exercise", rounds)));
  const due = nodes.length * rounds;
  await trial.within(ARRIVAL_LIMIT_MS, "all events of the exercise come", async () => (await come(nodes)).every((count, index) => count - before[index]! >= due));
  return Promise.all(nodes.map((node) => node.do("memory")));
}

/** For each node, its broadcasts and the balanced events of all. */
async function come(nodes: readonly FaultNode[]): Promise<number[]> {
  const counts = await Promise.all(nodes.map((node) => node.do("exercised")));
  const balanced = counts.reduce((sum, count) => sum + count.balanced, 0);
  return counts.map(({ broadcasts }) => broadcasts + balanced);
}

/** It lets go of everything, and its process ends because nothing holds it. */
async function checkEnd(trial: Trial, node: FaultNode): Promise<void> {
  await node.leave();
  const ended = await Promise.race([node.exited.then(() => true), sleep(EXIT_LIMIT_MS, false, { ref: false })]);
  trial.check(ended, `${node.name} still runs after stop: something holds it`);
}

async function checkDatabase(trial: Trial): Promise<void> {
  const rows = await trial.query("SELECT node_id FROM _chimpbase_mesh_nodes");
  trial.none(rows, "rows in the registry after stop");
  const held = await trial.query("SELECT concat_ws(' ', token, holder, lease_until - now(), ids) AS row FROM _chimpbase_mesh_claims UNION ALL SELECT lane FROM _chimpbase_mesh_ready");
  trial.none(held, "claims and ready jobs of an empty queue after stop");
  const connections = await trial.query(
    "SELECT pid, application_name, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
  );
  trial.none(connections, "database connections after stop");
}
