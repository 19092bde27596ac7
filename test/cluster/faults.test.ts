import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";
import { Cluster } from "./cluster.js";
import type { ClusterNode } from "./cluster.js";

const MESH = { heartbeatMs: 400, offlineAfterMs: 1_200, gcAfterMs: 60_000 };
const WHOAMI = "v1.probe.whoami";
const peerCount = async (node: ClusterNode) => (await node.do("peers")).length;

test("three nodes, heartbeats of 400 ms, and 1200 ms until one counts as gone", async (t) => {
  await using cluster = await Cluster.open();
  const relay = await relayTo(cluster.url);
  const join = () => cluster.prepare(MESH, { database: relay.url }).start();
  const [a, b, c] = (await Promise.all([join(), join(), join()])) as [ClusterNode, ClusterNode, ClusterNode];
  const allMet = () => until(async () => (await Promise.all([a, b, c].map(peerCount))).every((count) => count === 2));
  await allMet();

  await t.test("go on calling while Postgres is away for longer than that, and have lost nobody when it is back", async () => {
    await a.do("beginLoad", WHOAMI, 2, { strategy: "round-robin" });
    await relay.cut();
    await sleep(1.5 * MESH.offlineAfterMs);
    await relay.open();
    await sleep(2 * MESH.heartbeatMs);
    const { calls, failures } = await a.do("endLoad");
    assert.deepEqual([failures, calls > 10], [[], true]);
    assert.deepEqual(await Promise.all([a, b, c].map((node) => node.do("gone"))), [[], [], []]);
  });

  await t.test("likewise when Postgres accepts and answers nothing", async () => {
    relay.freeze();
    await sleep(1.5 * MESH.offlineAfterMs);
    relay.thaw();
    await sleep(2 * MESH.heartbeatMs);
    assert.deepEqual(await Promise.all([a, b, c].map((node) => node.do("gone"))), [[], [], []]);
  });

  await t.test("drop one that is frozen, which when it wakes has lost nobody, and is back", async () => {
    await sleep(MESH.offlineAfterMs);
    a.signal("SIGSTOP");
    const frozenAt = performance.now();
    await until(async () => (await peerCount(b)) === 1 && (await peerCount(c)) === 1, { timeoutMs: 3_000 });
    const droppedAfterMs = performance.now() - frozenAt;
    assert.ok(droppedAfterMs < MESH.offlineAfterMs + 500, `dropped after ${droppedAfterMs} ms`);
    await sleep(MESH.offlineAfterMs / 2);
    a.signal("SIGCONT");
    await allMet();
    assert.deepEqual(await a.do("gone"), []);
  });

  await t.test("drop two that are killed at one moment no later than one", async () => {
    await sleep(MESH.offlineAfterMs);
    await Promise.all([b.kill(), c.kill()]);
    const killedAt = performance.now();
    await until(async () => (await peerCount(a)) === 0, { timeoutMs: 3_000 });
    const droppedAfterMs = performance.now() - killedAt;
    assert.ok(droppedAfterMs < MESH.offlineAfterMs + 300, `dropped after ${droppedAfterMs} ms`);
  });

  await relay.close();
});
