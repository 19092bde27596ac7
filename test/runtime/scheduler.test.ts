import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { MeshConfigurationError } from "@chimpbase/mesh";
import type { CronFunction, CronOptions, CronRegistration, CronTick } from "#mesh/contract/registration.js";
import { createScheduler, type Scheduler } from "#mesh/runtime/scheduler.js";
import { until } from "../support/wait.js";
import { Cluster, Gate, quiet, sleep, type TestNode } from "./worker-nodes.js";

const EVERY_SECOND = "* * * * * *";

function cron(name: string, schedule: string, handler: CronFunction, options: CronOptions = {}): CronRegistration {
  return { kind: "cron", name, schedule, handler, options };
}

describe("scheduler", () => {
  let cluster: Cluster;
  let schedulers: Scheduler[];
  beforeEach(async () => {
    cluster = await Cluster.open();
    schedulers = [];
  });
  afterEach(async () => {
    await Promise.all(schedulers.map((scheduler) => scheduler.stop()));
    await cluster.close();
  });

  async function start(...registrations: CronRegistration[]): Promise<TestNode> {
    const node = await cluster.node();
    const scheduler = createScheduler({ storage: node.storage, worker: node.engine, nodeId: node.nodeId, log: quiet() });
    schedulers.push(scheduler);
    for (const registration of registrations) scheduler.add(registration);
    await scheduler.start();
    await node.engine.start();
    return node;
  }

  const setLastTick = (name: string, agoMs: number) =>
    cluster.storage.query(
      `INSERT INTO _chimpbase_mesh_crons VALUES ($1, '', '', floor(extract(epoch FROM clock_timestamp()) * 1000) - $2)`,
      [name, agoMs],
    );

  it("fires each tick on one node of the cluster", async () => {
    const ticks: CronTick[] = [];
    for (let index = 0; index < 3; index++) await start(cron("second", EVERY_SECOND, (_ctx, tick) => ticks.push(tick)));
    await until(() => ticks.length >= 3);
    const times = ticks.map((tick) => tick.scheduledAtMs);
    assert.equal(new Set(times).size, times.length);
    assert.ok(times.every((time) => time % 1_000 === 0));
    assert.deepEqual(times.slice(0, 3), [0, 1_000, 2_000].map((later) => times[0]! + later));
  });

  it("fires on time by the database's clock, whatever the node's own says", async () => {
    const real = Date.now;
    Date.now = () => real() - 600_000;
    try {
      const late: number[] = [];
      await start(cron("second", EVERY_SECOND, (_ctx, tick) => late.push(real() - tick.scheduledAtMs)));
      await until(() => late.length === 2);
      assert.ok(late.every((ms) => ms >= 0 && ms < 500), `${late.join(", ")} ms late`);
    } finally {
      Date.now = real;
    }
  });

  it("does not fire for the past when a cron is new", async () => {
    let fired = 0;
    await start(cron("nightly", "0 3 * * *", () => void fired++));
    await sleep(200);
    assert.equal(fired, 0);
  });

  it("missed ticks collapse to one that tells how many there were", async () => {
    await setLastTick("hourly", 5 * 3_600_000);
    const ticks: CronTick[] = [];
    await start(cron("hourly", "0 * * * *", (_ctx, tick) => ticks.push(tick)));
    await until(() => ticks.length === 1);
    assert.ok(ticks[0]!.missed === 4 || ticks[0]!.missed === 5);
    assert.equal(ticks[0]!.scheduledAtMs % 3_600_000, 0);
    assert.ok(Date.now() - ticks[0]!.scheduledAtMs < 3_600_000 + 60_000);
    await sleep(100);
    assert.equal(ticks.length, 1);
  });

  it("does not count a long absence tick by tick", async () => {
    await setLastTick("second", 365 * 86_400_000);
    const ticks: CronTick[] = [];
    await start(cron("second", EVERY_SECOND, (_ctx, tick) => ticks.push(tick)));
    await until(() => ticks.length === 1);
    assert.equal(ticks[0]!.missed, 1_000);
    assert.ok(Date.now() - ticks[0]!.scheduledAtMs < 5_000);
  });

  it("a handler that outlasts its interval does not stack up: the next tick stands for those between", async () => {
    const ticks: CronTick[] = [];
    let running = 0;
    let most = 0;
    const handler: CronFunction = async (_ctx, tick) => {
      ticks.push(tick);
      most = Math.max(most, ++running);
      if (ticks.length === 1) await sleep(2_300);
      running--;
    };
    for (let index = 0; index < 2; index++) await start(cron("slow", EVERY_SECOND, handler));
    await until(() => ticks.length === 2);
    assert.equal(most, 1);
    const { missed } = ticks[1]!;
    // One where a node that came late to the tick in which the handler ended found nobody at work.
    assert.ok(missed === 1 || missed === 2, `${missed} missed`);
    assert.equal(ticks[1]!.scheduledAtMs - ticks[0]!.scheduledAtMs, (missed + 1) * 1_000);
  });

  it("a tick whose handler fails is tried again, and dropped after its attempts", async () => {
    await setLastTick("failing", 2 * 3_600_000);
    let runs = 0;
    await start(cron("failing", "0 * * * *", () => { runs++; throw new Error("no"); }));
    await until(() => runs === 5);
    await until(() => cluster.settled());
    assert.deepEqual(await cluster.deadLetters(), []);
  });

  it("runs in the time zone given", async () => {
    await setLastTick("berlin", 24 * 3_600_000);
    const ticks: CronTick[] = [];
    await start(cron("berlin", "0 3 * * *", (_ctx, tick) => ticks.push(tick), { timezone: "Asia/Kolkata" }));
    await until(() => ticks.length === 1);
    // Three o'clock at +05:30.
    assert.equal(new Date(ticks[0]!.scheduledAtMs).toISOString().slice(11, 16), "21:30");
  });

  it("refuses a schedule or time zone that makes no sense, naming cron and value", async () => {
    const node = await cluster.node();
    const scheduler = createScheduler({ storage: node.storage, worker: node.engine, nodeId: node.nodeId, log: quiet() });
    for (const registration of [cron("bad", "61 * * * *", () => undefined), cron("bad", "* * * * *", () => undefined, { timezone: "Mars/Base" })]) {
      assert.throws(() => scheduler.add(registration), (error) => {
        assert.ok(error instanceof MeshConfigurationError);
        assert.ok(error.message.includes('"bad"') && error.message.includes(registration.options.timezone ?? registration.schedule));
        return true;
      });
    }
  });

  it("a tick that was claimed by a node which died runs elsewhere", async () => {
    const gate = new Gate();
    await setLastTick("hourly", 3_600_000);
    const first = await start(cron("hourly", "0 * * * *", () => gate.pass()));
    await until(() => gate.waiting === 1);
    await first.engine.stop();
    let ran = 0;
    await start(cron("hourly", "0 * * * *", () => void ran++));
    await until(() => ran === 1);
    gate.open();
  });
});
