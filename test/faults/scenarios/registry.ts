import { encodeWake } from "#mesh/runtime/wake.js";
import { callsOf, checkCalls } from "../checks.js";
import { now } from "../history.js";
import { HEARTBEAT_MS } from "../protocol.js";
import type { Scenario, Trial } from "../trial.js";

/** For asking three busy processes. */
const SLACK_MS = 400;
const LOAD = { calls: 100 };

export const registry: Scenario = {
  name: "registry",
  promise: "rows deleted or corrupted, notifications forged: all nodes agree on their peers again within two heartbeats",
  async run(trial) {
    const { cluster, random } = trial;
    await cluster.start(3);
    await cluster.load(LOAD);
    const troubles: (readonly [number, number])[] = [];
    for (let round = 0; round < trial.size(1, 3); round++) {
      for (const strike of random.shuffled([deleteRow, deleteAll, corruptServices, corruptMetadata, corruptUrl, forge]).slice(0, trial.size(3, 6))) {
        await trial.pause(100, 500);
        const from = now();
        await strike(trial);
        trial.over();
        // The damage may show only when it is read.
        await trial.converge();
        await trial.within(SLACK_MS, "all nodes reach their peers", () => allReach(trial));
        troubles.push([from, from + 2 * HEARTBEAT_MS + SLACK_MS]);
      }
    }
    await trial.settle();
    checkCalls(trial, callsOf(trial, cluster.nodes), troubles);
  },
};

async function allReach({ cluster: { nodes } }: Trial): Promise<boolean> {
  const reached = await Promise.all(nodes.flatMap((from) => nodes.map((to) => from.do("reaches", to.nodeId))));
  return reached.every(Boolean);
}

async function change(trial: Trial, what: string, sql: string): Promise<void> {
  const { name, nodeId } = trial.random.pick(trial.cluster.nodes);
  trial.fault(`${what} of ${name}`);
  await trial.query(`${sql} WHERE node_id = $1`, [nodeId]);
}

const TABLE = "_chimpbase_mesh_nodes";
const deleteRow = (trial: Trial): Promise<void> => change(trial, "delete row", `DELETE FROM ${TABLE}`);
const corruptServices = (trial: Trial): Promise<void> => change(trial, "corrupt services", `UPDATE ${TABLE} SET services_json = '[{"name":'`);
const corruptMetadata = (trial: Trial): Promise<void> => change(trial, "corrupt metadata", `UPDATE ${TABLE} SET metadata_json = '[[1]'`);
const corruptUrl = (trial: Trial): Promise<void> => change(trial, "corrupt URL", `UPDATE ${TABLE} SET advertised_url = 'http://127.0.0.1:1'`);

async function deleteAll(trial: Trial): Promise<void> {
  trial.fault("delete all rows");
  await trial.query(`DELETE FROM ${TABLE}`);
}

async function forge(trial: Trial): Promise<void> {
  trial.fault("forged notifications");
  const { nodeId } = trial.random.pick(trial.cluster.nodes);
  const leave = JSON.stringify({ event: "__chimpbase.mesh.info.leave", nodeId, payload: { nodeId } });
  const wakes = encodeWake({ nodeId: "00000000-0000-4000-8000-000000000000", events: "any", lanes: ["no", "such"], delayed: [] });
  for (const payload of ["", "{", "null", leave, ...wakes]) await trial.query("SELECT pg_notify($1, $2)", [trial.channel, payload]);
}
