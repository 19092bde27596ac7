import assert from "node:assert/strict";
import { test } from "node:test";
import { OldTransactions, type OpenTransaction } from "#mesh/runtime/old-transactions.js";
import { QueueUpkeep } from "#mesh/runtime/queue-upkeep.js";
import { memoryLog } from "../support/log.js";
import { Cluster } from "./worker-nodes.js";

test("a transaction that stays open is warned of once, the next one again", () => {
  const { log, lines } = memoryLog();
  const old = new OldTransactions(log);
  const open: OpenTransaction = { pid: 7, applicationName: "report", startedAt: "2030-01-01T00:00:00Z", openMs: 299_000 };
  assert.ok(old.due);
  for (const openMs of [299_000, 301_000, 361_000]) old.note({ ...open, openMs });
  old.note(null);
  assert.ok(!old.due);
  old.note({ ...open, startedAt: "2030-01-02T00:00:00Z", openMs: 400_000 });
  assert.deepEqual(lines.map(({ pid, applicationName, openMs }) => [pid, applicationName, openMs]), [[7, "report", 301_000], [7, "report", 400_000]]);
});

test("the oldest transaction that keeps rows alive is found, and only where asked for", async (t) => {
  const cluster = await Cluster.open();
  t.after(() => cluster.close());
  const upkeep = new QueueUpkeep(cluster.storage);
  const { storage, nodeId } = await cluster.node();
  const oldest = async (asked: boolean) => (await upkeep.look(["q:a", "q:b"], [], asked)).map((lane) => lane.oldestTransaction?.applicationName ?? null);
  assert.deepEqual(await oldest(true), [null, null]);
  const idle = await storage.begin();
  await idle.query("SELECT 1");
  assert.deepEqual(await oldest(true), [null, null]);
  await idle.query("SELECT pg_current_xact_id()");
  assert.deepEqual(await oldest(true), [`node-${nodeId}`, `node-${nodeId}`]);
  assert.deepEqual(await oldest(false), [null, null]);
  await idle.rollback();
});
