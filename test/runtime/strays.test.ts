import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { soloLane } from "#mesh/runtime/lane.js";
import { groupLane } from "#mesh/storage/lanes.js";
import { until } from "../support/wait.js";
import { balanced, Cluster, Gate } from "./worker-nodes.js";

const LEASE_MS = 800;
const OLD = groupLane("billing", "order.*");

describe("jobs of patterns that no node has any more", () => {
  let cluster: Cluster;
  beforeEach(async () => { cluster = await Cluster.open(); });
  afterEach(() => cluster.close());

  const remember = (pattern: string, regex: string | null): Promise<unknown> =>
    cluster.storage.query("INSERT INTO _chimpbase_mesh_groups (grp, pattern, regex, seen_at) VALUES ('billing', $1, $2, clock_timestamp() - interval '1 day')", [pattern, regex]);
  const insert = (lane: string, event: string, payload: string): Promise<string[]> => cluster.insert(lane, `__chimpbase.mesh.balanced.${event}`, "billing", event, [`"${payload}"`]);

  it("are taken over by a node whose pattern matches their events, whether they wait, are due again, or were held; others stay", async () => {
    await remember("order.*", "^order\\.[^.]*$");
    await insert(OLD, "order.paid", "held");
    await cluster.steal("gone", -1);
    await insert(OLD, "order.paid", "ready");
    await insert(soloLane(OLD), "order.paid", "alone");
    const [other] = await insert(OLD, "order.sent", "not for it");
    await cluster.storage.query(
      `INSERT INTO _chimpbase_mesh_deferred (id, run_at, lane, queue, grp, event, payload, headers, attempt, history, created_at)
       SELECT nextval('_chimpbase_mesh_job_id'), clock_timestamp(), $1, queue, grp, event, '"due"', headers, 2, '[]', now() FROM _chimpbase_mesh_jobs WHERE id = $2`,
      [OLD, other],
    );
    await cluster.storage.query("UPDATE _chimpbase_mesh_deferred SET event = 'order.paid'");
    const seen: [unknown, number | undefined][] = [];
    const { engine } = await cluster.node({ leaseMs: LEASE_MS });
    await engine.attach([balanced("billing", "order.paid", ({ event }, payload) => seen.push([payload, event?.attempt]))]);
    engine.start();
    await until(() => seen.length === 4, { timeoutMs: 20_000 });
    assert.deepEqual(seen.sort(), [["alone", 1], ["due", 3], ["held", 2], ["ready", 1]]);
    await until(async () => (await cluster.jobs()).length === 1);
    assert.deepEqual((await cluster.jobs()).map(({ id, lane }) => [id, lane]), [[other, OLD]]);
  });

  it("stay with a node that has the pattern, however long they wait for it", async () => {
    const gate = new Gate();
    const ran: string[] = [];
    const [old, young] = [await cluster.node({ leaseMs: LEASE_MS }), await cluster.node({ leaseMs: LEASE_MS })];
    await old.engine.attach([balanced("billing", "order.*", async () => { await gate.pass(); ran.push("old"); }, { concurrency: 1 })]);
    await young.engine.attach([balanced("billing", "order.paid", () => ran.push("young"))]);
    for (const payload of ["a", "b", "c"]) await insert(OLD, "order.paid", payload);
    old.engine.start();
    young.engine.start();
    const affirmed = async (): Promise<number> => {
      const [row] = await cluster.storage.query<{ ms: number }>("SELECT extract(epoch FROM max(seen_at))::float8 * 1000 AS ms FROM _chimpbase_mesh_groups WHERE pattern = 'order.*'");
      return row!.ms;
    };
    const first = await affirmed();
    // By then the younger one has compared patterns often enough to take over what is abandoned.
    await until(async () => (await affirmed()) - first > 6 * LEASE_MS, { timeoutMs: 30_000 });
    assert.deepEqual(ran, []);
    gate.open();
    await until(() => ran.length === 3);
    assert.deepEqual(ran, ["old", "old", "old"]);
  });

  it("cost nothing where the nodes of a group have the same patterns", async () => {
    for (let index = 0; index < 2; index++) {
      const { engine } = await cluster.node({ leaseMs: 200 });
      await engine.attach([balanced("billing", "order.*", () => undefined)]);
      engine.start();
    }
    const stamp = async (): Promise<string> => JSON.stringify(await cluster.storage.query("SELECT pattern, seen_at, xmin FROM _chimpbase_mesh_groups"));
    const before = await stamp();
    await cluster.emitTo("billing", "order.*", "order.paid", {});
    await until(() => cluster.settled());
    const [{ at }] = (await cluster.storage.query<{ at: Date }>("SELECT clock_timestamp() AS at")) as [{ at: Date }];
    await until(async () => (await cluster.storage.query("SELECT WHERE clock_timestamp() > $1::timestamptz + interval '1 second'", [at])).length === 1);
    assert.equal(await stamp(), before);
  });
});
