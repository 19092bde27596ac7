import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { onStart, service, worker } from "@chimpbase/mesh";
import type { Context } from "@chimpbase/mesh";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";

const LEASE_MS = 1_500;
const OFFLINE_AFTER_MS = 1_500;
const JOBS = 3;

const probe = service({ name: "probe", actions: { ping: () => "pong" } });
const mesh = { heartbeatMs: 250, offlineAfterMs: OFFLINE_AFTER_MS, gcAfterMs: 60_000 };
const options = (url: string, poolSize: number) => ({ database: { url, poolSize }, worker: { concurrency: JOBS, leaseMs: LEASE_MS } });

test("while jobs hold every pooled connection, no lease is lost, jobs settle, and the node stays at its peers", async () => {
  await using fixture = await MeshFixture.open();
  const busy = fixture.host([probe], mesh, options(fixture.url, JOBS));
  const runs: string[] = [];
  let mayEnd = false;
  let holding = 0;
  const finished = () => until(() => mayEnd, { timeoutMs: 20_000 });
  const transactional = async (ctx: Context, payload: { n: number }) => {
    runs.push(`transactional ${payload.n}`);
    await ctx.db.query("SELECT 1");
    holding++;
    await finished();
  };
  const plain = async (_ctx: Context, payload: { ends: boolean }) => {
    runs.push(`plain ${payload.ends}`);
    if (payload.ends) await until(() => holding === JOBS);
    else await finished();
  };
  const handlers = [worker("transactional", transactional), worker("plain", plain, { concurrency: 2, transaction: false })];
  busy.register(...handlers, onStart(async (ctx) => {
    for (const ends of [true, false]) await ctx.queue.enqueue("plain", { ends });
    await until(() => runs.length === 2);
    for (let n = 0; n < JOBS; n++) await ctx.queue.enqueue("transactional", { n });
  }));
  await busy.start();
  await until(() => holding === JOBS);
  const idle = fixture.host([probe], mesh, options(fixture.url, 4));
  await idle.register(...handlers).start();
  const seen = () => idle.mesh.peers().some(({ nodeId }) => nodeId === busy.nodeId);
  await until(seen);

  const queued = async () => (await fixture.query<{ queue: string }>("SELECT queue FROM _chimpbase_mesh_jobs ORDER BY id")).map((row) => row.queue);
  await until(async () => (await queued()).length === JOBS + 1, { timeoutMs: 2_000, message: "the job without a transaction is settled" });
  for (const end = performance.now() + 2 * Math.max(LEASE_MS, OFFLINE_AFTER_MS); performance.now() < end; await sleep(20)) {
    assert.ok(seen(), "the busy node is among the peers of the other");
  }
  mayEnd = true;
  await until(async () => (await queued()).length === 0);
  assert.deepEqual([...runs].sort(), ["plain false", "plain true", "transactional 0", "transactional 1", "transactional 2"]);
  assert.ok(!fixture.logs.some((line) => /was lost|taken over/.test(line)), fixture.logs.join(""));
});

test("a caller on another node is told that the pool is full, before its deadline", async () => {
  await using fixture = await MeshFixture.open();
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  let holding = false;
  const asked = service({ name: "asked", actions: {
    hold: (ctx: Context) => ctx.transaction(() => { holding = true; return held; }),
    ask: (ctx: Context) => ctx.db.query("SELECT 1"),
  } });
  await fixture.started([asked], mesh, options(fixture.url, 1));
  const caller = await fixture.started([probe], mesh);
  await caller.mesh.waitFor("v1.asked");
  const hold = caller.mesh.call("v1.asked.hold", {}, { timeoutMs: 20_000 });
  await until(() => holding);
  await assert.rejects(caller.mesh.call("v1.asked.ask", {}, { timeoutMs: 2_000 }), { code: "OVERLOADED" });
  release();
  await hold;
});
