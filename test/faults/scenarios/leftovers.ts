import { setTimeout as sleep } from "node:timers/promises";
import { callsOf, checkCalls } from "../checks.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

const MOST_GROWTH = 5 * 1024 * 1024;
const EXIT_LIMIT_MS = 3_000;

export const leftovers: Scenario = {
  name: "leftovers",
  promise: "many calls and events leave the heap as it was; after stop no row, connection, socket or process is left",
  async run(trial) {
    const { cluster } = trial;
    const nodes = await cluster.start(3);
    await cluster.load({ calls: 100, balanced: 20, broadcasts: 20 });
    await trial.pause(1_000);
    await trial.settle();
    checkCalls(trial, callsOf(trial, nodes), []);
    await checkHeap(trial, nodes[0]!);
    trial.fault("stop of all nodes");
    await Promise.all(nodes.map((node) => checkEnd(trial, node)));
    await checkDatabase(trial);
  },
};

async function checkHeap(trial: Trial, node: FaultNode): Promise<void> {
  const before = await node.do("exercise", trial.size(3_000, 20_000));
  const after = await node.do("exercise", trial.size(5_000, 100_000));
  trial.check(after - before < MOST_GROWTH, `the heap grew by ${((after - before) / 2 ** 20).toFixed(1)} MiB`);
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
  const held = await trial.query("SELECT token::text AS row FROM _chimpbase_mesh_claims UNION ALL SELECT lane FROM _chimpbase_mesh_ready");
  trial.none(held, "claims and ready jobs of an empty queue after stop");
  const connections = await trial.query(
    "SELECT pid, application_name, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
  );
  trial.none(connections, "database connections after stop");
}
