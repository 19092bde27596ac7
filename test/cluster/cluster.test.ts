import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/wait.js";
import { Cluster } from "./cluster.js";
import type { ClusterNode } from "./cluster.js";

const WHOAMI = "v1.probe.whoami";
const ROUND = { strategy: "round-robin" } as const;
const peerIds = async (node: ClusterNode) => (await node.do("peers")).map(({ nodeId }) => nodeId).sort();
const idsOf = (...nodes: readonly ClusterNode[]) => nodes.map(({ nodeId }) => nodeId).sort();
const within = (timeoutMs: number) => ({ timeoutMs });

test("three nodes", async (t) => {
  await using cluster = await Cluster.open();
  const [a, b, c] = (await cluster.nodes(3)) as [ClusterNode, ClusterNode, ClusterNode];

  await t.test("find each other, and each can call each", async () => {
    assert.deepEqual(await peerIds(a), idsOf(b, c));
    assert.equal((await a.do("peers")).find(({ nodeId }) => nodeId === b.nodeId)?.advertisedUrl, b.url);
    for (const from of [a, b, c]) {
      for (const to of [a, b, c]) assert.equal(await from.do("call", WHOAMI, {}, { nodeId: to.nodeId }), to.nodeId);
    }
    const asked = new Set<unknown>();
    for (let i = 0; i < 6; i++) asked.add(await a.do("call", WHOAMI, {}, ROUND));
    assert.deepEqual([...asked].sort(), idsOf(a, b, c));
  });

  await t.test("each get a broadcast once, and one of their group a balanced event", async () => {
    const nodes = [a, b, c];
    for (let i = 0; i < 10; i++) await nodes[i % 3]!.do("emit", "news", String(i));
    for (let i = 0; i < 10; i++) await nodes[i % 3]!.do("emit", "order.paid", String(i));
    const all = async () => (await Promise.all(nodes.map((node) => node.do("received")))) as readonly (readonly string[])[];
    await until(async () => (await all()).flat().length >= 40);
    const got = await all();
    const expected = Array.from({ length: 10 }, (_, i) => String(i));
    for (const list of got) assert.deepEqual(list.filter((entry) => entry.startsWith("news")).map((entry) => entry.slice(5)).sort(), expected);
    assert.deepEqual(got.flat().filter((entry) => entry.startsWith("paid")).map((entry) => entry.slice(5)).sort(), expected);
  });

  await t.test("see and call a service within a second after one of them has added it, and no longer once it is taken off", async () => {
    await b.do("addReports");
    await a.do("waitFor", ["v1.reports", "v1.reports.build"], { timeoutMs: 1_000 });
    assert.equal(await a.do("call", "v1.reports.build"), b.nodeId);
    await b.do("removeReports");
    const offered = async () => (await a.do("peers")).flatMap(({ services }) => services.map(({ name }) => name));
    await until(async () => !(await offered()).includes("reports"), within(1_000));
    await assert.rejects(a.do("call", "v1.reports.build"), { code: "NO_AVAILABLE_NODE" });
    await b.do("addReports");
    await a.do("waitFor", ["v1.reports"], { timeoutMs: 1_000 });
  });

  await t.test("fail calls to one that is killed at once, in a way that can be retried, and send later ones elsewhere", async () => {
    const underWay = assert.rejects(
      a.do("call", "v1.probe.sleep", { ms: 20_000 }, { nodeId: b.nodeId, timeoutMs: 20_000 }),
      { code: "CALL_FAILED", retryable: true },
    );
    await until(async () => (await b.do("received")).includes("sleeping"));
    const killedAt = performance.now();
    await b.kill();
    await underWay;
    assert.ok(performance.now() - killedAt < 2_000);
    for (let i = 0; i < 10; i++) assert.notEqual(await a.do("call", WHOAMI, {}, ROUND), b.nodeId);
    await assert.rejects(a.do("call", WHOAMI, {}, { nodeId: b.nodeId }), { code: "CALL_FAILED" });
    assert.equal(await a.do("call", WHOAMI, {}, { nodeId: c.nodeId }), c.nodeId);
  });
});

test("a rolling restart under calls without retries loses none of them, and each change is seen within a second", async () => {
  await using cluster = await Cluster.open();
  const [caller, ...old] = await cluster.nodes(3) as [ClusterNode, ClusterNode, ClusterNode];
  await caller.do("beginLoad", WHOAMI, 16, ROUND);
  for (const node of old) {
    const fresh = await cluster.prepare().start();
    await until(async () => (await peerIds(caller)).includes(fresh.nodeId), within(1_000));
    await node.do("stop");
    await until(async () => !(await peerIds(caller)).includes(node.nodeId), within(1_000));
    await assert.rejects(caller.do("call", WHOAMI, {}, { nodeId: node.nodeId }), { code: "NO_AVAILABLE_NODE" });
  }
  const { calls, failures } = await caller.do("endLoad");
  assert.deepEqual(failures, []);
  assert.ok(calls > 100, `${calls} calls`);
});
