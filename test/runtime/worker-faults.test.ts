import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { until } from "../support/wait.js";
import { Cluster, sleep, worker } from "./worker-nodes.js";

describe("jobs under faults of Postgres", () => {
  let cluster: Cluster;
  beforeEach(async () => { cluster = await Cluster.open(); });
  afterEach(() => cluster.close());

  const killBackends = () =>
    cluster.storage.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'node-%' AND datname = current_database()");

  it("have their effects in the database once each, while connections are cut again and again", async () => {
    const jobs = Array.from({ length: 300 }, (_, index) => index);
    await cluster.storage.query("CREATE TABLE effects (job INT)");
    await cluster.enqueue("q", jobs);
    for (let index = 0; index < 2; index++) {
      const { engine } = await cluster.node({ leaseMs: 1_000, maxAttempts: 100, pollIntervalMs: 50 });
      await engine.attach([worker("q", async ({ session }, payload) => {
        await session!.query("INSERT INTO effects VALUES ($1)", [payload]);
        await sleep(5);
      })]);
      await engine.start();
    }
    for (let cut = 0; cut < 10; cut++) {
      await sleep(60);
      await killBackends();
    }
    await until(() => cluster.settled(), { timeoutMs: 20_000 });
    const effects = await cluster.storage.query<{ job: number }>("SELECT job FROM effects ORDER BY job");
    assert.deepEqual(effects.map((row) => row.job), jobs);
    assert.deepEqual(await cluster.deadLetters(), []);
  });

  it("are neither lost nor run at the same time twice across rolling restarts of their nodes", async () => {
    const jobs = Array.from({ length: 400 }, (_, index) => index);
    await cluster.enqueue("q", jobs);
    const runs = new Map<unknown, number>();
    const boot = async () => {
      const { engine } = await cluster.node();
      await engine.attach([worker("q", async (_scope, payload) => {
        await sleep(3);
        runs.set(payload, (runs.get(payload) ?? 0) + 1);
      })]);
      await engine.start();
      return engine;
    };
    let current = [await boot(), await boot()];
    for (let restart = 0; restart < 4; restart++) {
      const [oldest, other] = current as [typeof current[0], typeof current[0]];
      current = [other, await boot()];
      await sleep(20);
      await oldest.drain();
      await until(() => oldest.inFlight().length === 0);
      await oldest.stop();
    }
    await until(() => cluster.settled());
    assert.equal(runs.size, jobs.length);
    assert.deepEqual(new Set(runs.values()), new Set([1]));
  });

  it("wait without a connection to spare, and go on when there is one", async () => {
    const { engine, storage } = await cluster.node({ leaseMs: 2_000 }, 2);
    let done = 0;
    await engine.attach([worker("q", () => void done++)]);
    const held = [await storage.begin(), await storage.begin()];
    await engine.start();
    await cluster.enqueue("q", Array(20).fill(0));
    await sleep(300);
    assert.equal(done, 0);
    for (const tx of held) await tx.rollback();
    await until(() => cluster.settled());
    assert.equal(done, 20);
  });
});
