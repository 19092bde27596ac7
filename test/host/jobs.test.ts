import assert from "node:assert/strict";
import { test } from "node:test";
import { onStart, worker } from "@chimpbase/mesh";
import type { Context, Host } from "@chimpbase/mesh";
import { createDatabase } from "../support/database.js";
import { hostOn, makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

/** With this, what is quick did not wait for a look at the tables. */
const rarely = { worker: { pollIntervalMs: 30_000, leaseMs: 600_000 } };

test("a delayed job of this process starts when it is due, enqueued in a transaction or not", async (t) => {
  const { host } = await makeHost(t, rarely);
  const lateMs: number[] = [];
  let ctx: Context | undefined;
  host.register(
    worker("later", (_ctx, { dueAt }: { dueAt: number }) => void lateMs.push(performance.now() - dueAt)),
    onStart((given) => void (ctx = given)),
  );
  await host.start();
  const enqueue = (queue: Context["queue"], delayMs: number) => queue.enqueue("later", { dueAt: performance.now() + delayMs }, { delayMs });
  await enqueue(ctx!.queue, 300);
  await enqueue(ctx!.queue, 60);
  await ctx!.transaction((tx) => enqueue(tx.queue, 150));
  await until(() => lateMs.length === 3);
  assert.ok(lateMs.every((ms) => ms >= 0 && ms < 500), `${lateMs.join(", ")} ms late`);
});

test("what a stopping node gives back runs on another at once", async (t) => {
  const database = await createDatabase();
  const { host: leaving } = hostOn(database.url, { ...rarely, drainTimeoutMs: 50 });
  const { host: staying } = hostOn(database.url, rarely);
  t.after(async () => {
    await Promise.all([leaving.stop(), staying.stop()]);
    await database.drop();
  });
  const runs: string[] = [];
  const long = (host: Host) => worker("long", async (ctx) => {
    runs.push(host.nodeId);
    if (host === leaving) await new Promise((_resolve, reject) => ctx.signal.addEventListener("abort", () => reject(new Error("aborted"))));
  });
  await leaving.register(long(leaving), onStart((ctx) => ctx.queue.enqueue("long", null))).start();
  await until(() => runs.length === 1);
  await staying.register(long(staying)).start();
  await leaving.stop();
  await until(() => runs.length === 2, { timeoutMs: 2_000 });
  assert.deepEqual(runs, [leaving.nodeId, staying.nodeId]);
});

test("a delayed job of another process, which does not serve its queue, starts when it is due", async (t) => {
  const database = await createDatabase();
  const { host: asking } = hostOn(database.url, rarely);
  const { host: serving } = hostOn(database.url, rarely);
  t.after(async () => {
    await Promise.all([asking.stop(), serving.stop()]);
    await database.drop();
  });
  let lateMs: number | undefined;
  await serving.register(worker("later", (_ctx, dueAt: number) => void (lateMs = performance.now() - dueAt))).start();
  await asking.register(onStart((ctx) => ctx.queue.enqueue("later", performance.now() + 200, { delayMs: 200 }))).start();
  await until(() => lateMs, { timeoutMs: 5_000 });
  assert.ok(lateMs! >= 0 && lateMs! < 500, `${lateMs} ms late`);
});
