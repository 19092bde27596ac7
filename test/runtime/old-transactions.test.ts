import assert from "node:assert/strict";
import { test } from "node:test";
import { OldTransactions, type OpenTransaction } from "#mesh/runtime/old-transactions.js";
import { QueueUpkeep } from "#mesh/runtime/queue-upkeep.js";
import { memoryLog } from "../support/log.js";
import { Cluster } from "./worker-nodes.js";

const OPEN: OpenTransaction = { pid: 7, applicationName: "report", startedAt: "2030-01-01T00:00:00Z", openMs: 0 };

test("a transaction that stays open for a minute is warned of once, the next one again", () => {
  const { log, lines } = memoryLog();
  const old = new OldTransactions(log);
  for (const openMs of [59_000, 61_000, 121_000]) old.note({ ...OPEN, openMs });
  old.note(null);
  old.note({ ...OPEN, startedAt: "2030-01-02T00:00:00Z", openMs: 400_000 });
  assert.deepEqual(lines.map(({ pid, applicationName, openMs }) => [pid, applicationName, openMs]), [[7, "report", 61_000], [7, "report", 400_000]]);
});

test("one that is looked for every ten seconds is warned of within two minutes", (t) => {
  const { log, lines } = memoryLog();
  const old = new OldTransactions(log);
  const time = t.mock.method(performance, "now", () => 0);
  for (let openMs = 5_000; lines.length === 0 && openMs < 300_000; openMs += 10_000) {
    time.mock.mockImplementation(() => openMs);
    if (old.due) old.note({ ...OPEN, openMs });
  }
  assert.equal(lines.length, 1);
  assert.ok(Number(lines[0]!["openMs"]) < 120_000);
});

test("the oldest transaction that keeps rows alive is found, and only where asked for", async (t) => {
  const cluster = await Cluster.open();
  t.after(() => cluster.close());
  const upkeep = new QueueUpkeep(cluster.storage);
  const { storage, nodeId } = await cluster.node();
  const oldest = async (asked: boolean) => (await upkeep.look(["q:a", "q:b"], { withOldest: asked })).map((lane) => lane.oldestTransaction?.applicationName ?? null);
  assert.deepEqual(await oldest(true), [null, null]);
  const idle = await storage.begin();
  await idle.query("SELECT 1");
  assert.deepEqual(await oldest(true), [null, null]);
  await idle.query("SELECT pg_current_xact_id()");
  assert.deepEqual(await oldest(true), [`node-${nodeId}`, `node-${nodeId}`]);
  assert.deepEqual(await oldest(false), [null, null]);
  await idle.rollback();
});
