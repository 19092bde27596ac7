import assert from "node:assert/strict";
import { test } from "node:test";
import { TimerWheel } from "#mesh/pipeline/timer-wheel.js";
import { until } from "../support/wait.js";

test("callbacks run in the order of their delays, never before their time", async () => {
  const wheel = new TimerWheel();
  const begun = performance.now();
  const ran: [number, number][] = [];
  for (const delay of [60, 10, 30]) wheel.add(delay, () => ran.push([delay, performance.now() - begun]));
  await until(() => ran.length === 3);
  assert.deepEqual(ran.map(([delay]) => delay), [10, 30, 60]);
  for (const [delay, after] of ran) assert.ok(after >= delay, `${delay} ran after ${after}`);
  assert.equal(wheel.size, 0);
});

test("callbacks that a busy loop has kept waiting run in the order of their delays too", async () => {
  const wheel = new TimerWheel();
  const ran: number[] = [];
  for (const delay of [60, 10, 30]) wheel.add(delay, () => ran.push(delay));
  const begun = performance.now();
  while (performance.now() - begun < 80);
  await until(() => ran.length === 3);
  assert.deepEqual(ran, [10, 30, 60]);
});

test("a cancelled callback never runs, and cancelling twice counts once", async () => {
  const wheel = new TimerWheel();
  let ran = 0;
  const entry = wheel.add(5, () => ran++);
  wheel.add(30, () => (ran += 10));
  entry.cancel();
  entry.cancel();
  assert.equal(wheel.size, 1);
  await until(() => ran >= 10);
  assert.equal(ran, 10);
});

test("a wheel with nothing pending keeps no process alive", () => {
  const wheel = new TimerWheel();
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const before = timers();
  const entry = wheel.add(60_000, () => undefined);
  assert.equal(timers(), before + 1);
  entry.cancel();
  assert.equal(timers(), before);
  const again = wheel.add(70_000, () => undefined);
  assert.equal(timers(), before + 1, "the timer that sleeps on counts again");
  again.cancel();
  wheel.close();
});

test("an entry from before close takes nothing from what was added afterwards", async () => {
  const wheel = new TimerWheel();
  const old = wheel.add(1_000, () => assert.fail("closed"));
  wheel.close();
  let ran = false;
  wheel.add(5, () => (ran = true));
  old.cancel();
  assert.equal(wheel.size, 1);
  await until(() => ran);
});

test("close from within a callback drops those of the same tick", async () => {
  const wheel = new TimerWheel();
  let ran = 0;
  const closeAll = (): void => {
    ran++;
    wheel.close();
  };
  for (let i = 0; i < 3; i++) wheel.add(5, closeAll);
  await until(() => ran > 0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(wheel.size, 0);
  wheel.add(1, () => (ran = 100));
  await until(() => ran === 100);
  assert.equal(wheel.size, 0);
});

test("what is added after close runs, and keeps no process alive", async () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const wheel = new TimerWheel();
  wheel.close();
  const before = timers();
  let ran = false;
  wheel.add(10, () => (ran = true));
  assert.equal(timers(), before);
  await until(() => ran);
});

test("callbacks added by a callback run, and a wheel that slept over a cancelled entry wakes for later ones", async () => {
  const wheel = new TimerWheel();
  const ran: string[] = [];
  wheel.add(5, () => void wheel.add(0, () => ran.push("inner")));
  wheel.add(10, () => ran.push("cancelled")).cancel();
  wheel.add(40, () => ran.push("outer"));
  await until(() => ran.length === 2);
  assert.deepEqual(ran, ["inner", "outer"]);
});

test("delays beyond what a timer can hold stay pending", () => {
  const wheel = new TimerWheel();
  wheel.add(2 ** 40, () => assert.fail("too early"));
  wheel.add(Infinity, () => assert.fail("never"));
  assert.equal(wheel.size, 2);
  wheel.close();
});
