import assert from "node:assert/strict";
import { test } from "node:test";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { NO_RETRY, pause, resolveRetry, retryDelay } from "#mesh/pipeline/retry.js";
import { TimerWheel } from "#mesh/pipeline/timer-wheel.js";

const policy = (over: object) => resolveRetry(over, NO_RETRY, "test");

test("the pause grows by its factor, and stops growing at a minute", () => {
  const growing = policy({ delayMs: 100, factor: 3, jitter: 0 });
  assert.deepEqual([1, 2, 3, 20].map((retry) => retryDelay(growing, retry)), [100, 300, 900, 60_000]);
  assert.equal(retryDelay(growing, 5000), 60_000);
});

test("jitter shortens the pause by up to its share", () => {
  const half = policy({ delayMs: 100, jitter: 0.5 });
  assert.deepEqual([0, 0.5, 1].map((random) => retryDelay(half, 1, () => random)), [100, 75, 50]);
});

test("fields that are left out come from the defaults", () => {
  assert.deepEqual(policy({ attempts: 3 }), { ...NO_RETRY, attempts: 3 });
  assert.equal(resolveRetry(undefined, NO_RETRY, "test"), NO_RETRY);
});

test("a pause ends at its time or at the cancellation, and leaves no timer", async () => {
  const wheel = new TimerWheel();
  await pause(wheel, 5, new Cancellation());
  const cancellation = new Cancellation();
  const long = pause(wheel, 60_000, cancellation);
  cancellation.abort("enough");
  await long;
  assert.equal(wheel.size, 0);
});

test("a pause under a cancellation that has happened ends at once", async () => {
  const cancellation = new Cancellation();
  cancellation.abort("before");
  const wheel = new TimerWheel();
  await pause(wheel, 60_000, cancellation);
  assert.equal(wheel.size, 0);
});
