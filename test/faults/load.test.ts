import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LoadGenerator } from "./load.js";

test("a load generator tells what it leaves out, where too much is under way and where it did not run", async () => {
  let omitted = 0;
  let started = 0;
  const waiting: (() => void)[] = [];
  const generator = new LoadGenerator((operations) => (omitted += operations));
  const start = (): Promise<void> => new Promise((resolve) => waiting.push(resolve));
  generator.run([{ perSecond: 40_000, start: () => (started++, start()) }]);
  await sleep(100);
  assert.equal(started, 2_000);
  const full = omitted;
  assert.ok(full > 0);
  for (const resolve of waiting.splice(0)) resolve();
  await generator.quiet();

  generator.run([{ perSecond: 100, start: async () => undefined }]);
  for (const end = performance.now() + 600; performance.now() < end; );
  await sleep(20);
  await generator.quiet();
  assert.ok(omitted - full > 40 && omitted - full < 100, String(omitted - full));
});
