import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/wait.js";
import { Cluster } from "./cluster.js";
import type { ClusterNode } from "./cluster.js";

const WHOAMI = "v1.probe.whoami";
const peerIds = async (node: ClusterNode) => (await node.do("peers")).map(({ nodeId }) => nodeId).sort();
const idsOf = (...nodes: readonly ClusterNode[]) => nodes.map(({ nodeId }) => nodeId).sort();
const within = (timeoutMs: number) => ({ timeoutMs });

test("three nodes find each other, and each can call each", async () => {
  await using cluster = await Cluster.open();
  const [a, b, c] = (await cluster.nodes(3)) as [ClusterNode, ClusterNode, ClusterNode];
  assert.deepEqual(await peerIds(a), idsOf(b, c));
  assert.equal((await a.do("peers")).find(({ nodeId }) => nodeId === b.nodeId)?.advertisedUrl, b.url);
  for (const from of [a, b, c]) {
    for (const to of [a, b, c]) assert.equal(await from.do("call", WHOAMI, {}, { nodeId: to.nodeId }), to.nodeId);
  }
  const asked = new Set<unknown>();
  for (let i = 0; i < 6; i++) asked.add(await a.do("call", WHOAMI, {}, { strategy: "round-robin" }));
  assert.deepEqual([...asked].sort(), idsOf(a, b, c));
});

test("when a node is killed its calls fail at once with a retryable error, and later ones go elsewhere", async () => {
  await using cluster = await Cluster.open();
  const [a, b, c] = (await cluster.nodes(3)) as [ClusterNode, ClusterNode, ClusterNode];
  const underWay = assert.rejects(
    a.do("call", "v1.probe.sleep", { ms: 20_000 }, { nodeId: b.nodeId, timeoutMs: 20_000 }),
    { code: "CALL_FAILED" },
  );
  await until(async () => (await b.do("received")).includes("sleeping"));
  const killedAt = performance.now();
  await b.kill();
  await underWay;
  assert.ok(performance.now() - killedAt < 2_000);
  for (let i = 0; i < 10; i++) assert.notEqual(await a.do("call", WHOAMI, {}, { strategy: "round-robin" }), b.nodeId);
  assert.equal(await a.do("call", WHOAMI, {}, { nodeId: c.nodeId }), c.nodeId);
});

test("a frozen node is dropped within the offline limit, and is back when it wakes", async () => {
  await using cluster = await Cluster.open();
  const [a, b] = (await cluster.nodes(2, { heartbeatMs: 300, offlineAfterMs: 900, gcAfterMs: 60_000 })) as [ClusterNode, ClusterNode];
  b.signal("SIGSTOP");
  const frozenAt = performance.now();
  await until(async () => (await peerIds(a)).length === 0, within(3_000));
  assert.ok(performance.now() - frozenAt < 2_500);
  b.signal("SIGCONT");
  await until(async () => (await peerIds(a)).length === 1, within(3_000));
});

test("a stopped node is gone from its peers within a second of stop, and a new one can be called within a second of start", async () => {
  await using cluster = await Cluster.open();
  const [a, b] = (await cluster.nodes(2)) as [ClusterNode, ClusterNode];
  await b.do("stop");
  await until(async () => (await peerIds(a)).length === 0, within(1_000));
  const c = await cluster.prepare().start();
  await until(async () => (await a.do("call", WHOAMI, {}, { nodeId: c.nodeId }).catch(() => null)) === c.nodeId, within(1_000));
});

test("a rolling stop under calls loses none of them", async () => {
  await using cluster = await Cluster.open();
  const [a, b, c] = (await cluster.nodes(3)) as [ClusterNode, ClusterNode, ClusterNode];
  let stopped = false;
  const callers = Array.from({ length: 4 }, async () => {
    let calls = 0;
    for (; !stopped; calls++) await a.do("call", WHOAMI, {}, { strategy: "round-robin" });
    return calls;
  });
  await b.do("stop");
  await c.do("stop");
  stopped = true;
  const counts = await Promise.all(callers);
  assert.ok(counts.every((count) => count > 0));
});

test("a broadcast reaches every node once, a balanced event one node of its group", async () => {
  await using cluster = await Cluster.open();
  const nodes = await cluster.nodes(3);
  for (let i = 0; i < 10; i++) await nodes[i % 3]!.do("emit", "news", String(i));
  for (let i = 0; i < 10; i++) await nodes[i % 3]!.do("emit", "order.paid", String(i));
  const all = async () => (await Promise.all(nodes.map((node) => node.do("received")))) as readonly (readonly string[])[];
  await until(async () => (await all()).flat().length >= 40);
  const got = await all();
  const expected = Array.from({ length: 10 }, (_, i) => String(i));
  for (const list of got) assert.deepEqual(list.filter((entry) => entry.startsWith("news")).map((entry) => entry.slice(5)).sort(), expected);
  assert.deepEqual(got.flat().filter((entry) => entry.startsWith("paid")).map((entry) => entry.slice(5)).sort(), expected);
});

test("a service added to a running node is seen and called within a second, and gone within a second when taken off", async () => {
  await using cluster = await Cluster.open();
  const [a, b] = (await cluster.nodes(2)) as [ClusterNode, ClusterNode];
  await b.do("addReports");
  await a.do("waitFor", ["v1.reports", "v1.reports.build"], { timeoutMs: 1_000 });
  assert.equal(await a.do("call", "v1.reports.build"), b.nodeId);
  await b.do("removeReports");
  await until(async () => !(await a.do("peers"))[0]!.services.some(({ name }) => name === "reports"), within(1_000));
  await assert.rejects(a.do("call", "v1.reports.build"), { code: "NO_AVAILABLE_NODE" });
  await b.do("addReports");
  await a.do("waitFor", ["v1.reports"], { timeoutMs: 1_000 });
});
