import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/wait.js";
import { Cluster } from "./cluster.js";
import type { ClusterNode } from "./cluster.js";
import type { About } from "./protocol.js";

const MINUTES = 60_000;
const HEARTBEATS = { heartbeatMs: 250, offlineAfterMs: 1_500, gcAfterMs: 60_000 };

for (const rpcAuth of ["token", "signed"] as const) test(`calls over two hops, ${rpcAuth}, between nodes whose clocks are ten minutes wrong and whose paths and tokens differ`, async (t) => {
  await using cluster = await Cluster.open();
  const secrets = { OLD: "old", NEW: "new" };
  const [a, b, c] = (await Promise.all([
    cluster.prepare({ ...HEARTBEATS, rpcAuth, meshToken: ["NEW", "OLD"] }, { secrets, clockOffsetMs: 10 * MINUTES }).start(),
    cluster.prepare({ ...HEARTBEATS, rpcAuth, meshToken: ["OLD", "NEW"], rpcPath: "/b/rpc" }, { secrets, clockOffsetMs: -10 * MINUTES }).start(),
    cluster.prepare({ ...HEARTBEATS, rpcAuth, meshToken: ["NEW", "OLD"], rpcPath: "/c" }, { secrets }).start(),
  ])) as [ClusterNode, ClusterNode, ClusterNode];
  const startedAt = performance.now();
  const peerCount = async () => Promise.all([a, b, c].map(async (node) => (await node.do("peers")).length));
  await until(async () => (await peerCount()).every((count) => count === 2));
  const through = (action: string, args: unknown = {}) => ({ nodeIds: [b.nodeId, c.nodeId], action, args });
  const relay = (action: string, args?: unknown, options = {}) => a.do("call", "v1.probe.relay", through(action, args), options);

  await t.test("the budget travels as what remains of it; level, meta and caller go along", async () => {
    const about = (await relay("v1.probe.about", {}, { timeoutMs: 5_000, meta: { tenant: 7 } })) as About;
    assert.equal(about.nodeId, c.nodeId);
    assert.ok(about.deadline! > 2_000 && about.deadline! < 5_000, `${about.deadline} ms remain`);
    assert.deepEqual([about.level, about.meta, about.caller], [3, { tenant: 7 }, { nodeId: b.nodeId, action: "v1.probe.relay" }]);
  });

  await t.test("the clocks are as wrong as they should be", async () => {
    const [fast, slow] = (await Promise.all([a, b].map((node) => node.do("call", "v1.probe.about", {}, { nodeId: node.nodeId })))) as [About, About];
    assert.ok(Math.abs(fast.clockMs - slow.clockMs - 20 * MINUTES) < MINUTES);
  });

  await t.test("the deadline ends the handler at the far end, and so does the caller's signal", async () => {
    const seen = async () => (await c.do("received")).filter((entry) => /waiting|aborted/.test(entry));
    await assert.rejects(relay("v1.probe.untilAborted", {}, { timeoutMs: 400 }), { code: "TIMEOUT" });
    await until(async () => (await seen()).length === 2);
    assert.equal(await a.do("cancelled", "v1.probe.relay", through("v1.probe.untilAborted"), 200, { timeoutMs: 20_000 }), "CANCELLED");
    await until(async () => (await seen()).length === 4, { timeoutMs: 2_000 });
    assert.match((await seen())[3]!, /^aborted: /);
  });

  await t.test("meta goes into events that are emitted at the far end", async () => {
    await relay("v1.probe.tell", { event: "traced", payload: 1 }, { meta: { tenant: 8 } });
    for (const node of [a, b, c]) await until(async () => (await node.do("received")).includes('traced {"tenant":8}'));
  });

  await t.test("a chain that is too deep is refused with its names", async () => {
    const nodeIds = Array.from({ length: 110 }, (_, i) => [b, c][i % 2]!.nodeId);
    await assert.rejects(a.do("call", "v1.probe.relay", { nodeIds, action: "v1.probe.about" }, { timeoutMs: 60_000 }), { code: "CALL_DEPTH", message: /^call depth over 100: … → v1\.probe\.relay → v1\.probe\.relay/ });
  });

  await t.test("nobody has expired, and rows and times are the database's", async () => {
    await until(() => performance.now() - startedAt > 1.2 * HEARTBEATS.offlineAfterMs);
    assert.deepEqual(await peerCount(), [2, 2, 2]);
    for (const { lastHeartbeatMs } of await a.do("peers")) assert.ok(Math.abs(lastHeartbeatMs - Date.now()) < MINUTES);
  });

  await t.test("events arrive at once, whatever the clock of their emitter", async () => {
    for (const [i, node] of [a, b].entries()) {
      await node.do("emit", "news", String(i));
      await node.do("emit", "order.paid", String(i));
    }
    const all = async () => (await Promise.all([a, b, c].map((node) => node.do("received")))).flat().filter((entry) => /news|paid/.test(entry));
    await until(async () => (await all()).length === 8, { timeoutMs: 3_000 });
  });

  await t.test("a node with a token that nobody accepts is refused, and accepts nobody", async () => {
    const stranger = await cluster.prepare({ ...HEARTBEATS, rpcAuth, meshToken: "OTHER" }, { secrets: { OTHER: "other" } }).start();
    await until(async () => (await peerCount()).every((count) => count === 3) && (await stranger.do("peers")).length === 3);
    for (const [from, to] of [[a, stranger], [stranger, a]] as const) {
      await assert.rejects(from.do("call", "v1.probe.whoami", {}, { nodeId: to.nodeId }), { code: "UNAUTHORIZED" });
    }
  });
});
