import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ReplayGuard } from "#mesh/mesh/replay-guard.js";
import { ReplayWindow } from "#mesh/mesh/replay-window.js";

describe("a replay window", () => {
  test("takes each number once, in any order within its width", () => {
    const window = new ReplayWindow(64);
    for (const number of [5, 3, 4, 0, 63, 64]) assert.equal(window.take(number), true, String(number));
    for (const number of [5, 3, 4, 63, 64, 0]) assert.equal(window.take(number), false, String(number));
  });

  test("takes nothing that lies left of it, seen or not", () => {
    const window = new ReplayWindow(64);
    assert.equal(window.take(1000), true);
    assert.equal(window.take(1000 - 64), false);
    assert.equal(window.take(1000 - 63), true);
    assert.equal(window.take(1001), true);
    assert.equal(window.take(1001 - 64), false);
  });

  test("remembers nothing of what it left behind when it leaps, and begins anywhere", () => {
    const window = new ReplayWindow(64);
    for (let number = 0; number < 200; number++) assert.equal(window.take(number), true);
    const far = 2 ** 53 - 65;
    for (let number = far; number < far + 64; number++) assert.equal(window.take(number), true);
    for (let number = far; number < far + 64; number++) assert.equal(window.take(number), false);
    assert.equal(window.take(Number.MAX_SAFE_INTEGER), true);
  });

  test("is wide enough for 16383 requests that overtake one", () => {
    const window = new ReplayWindow();
    for (let number = 1; number < 16_384; number++) window.take(number);
    assert.equal(window.take(0), true);
    window.take(16_384);
    assert.equal(window.take(0), false);
  });

  test("answers as a set of all numbers seen would", () => {
    const steps = fc.array(fc.oneof(fc.integer({ min: -200, max: 80 }), fc.integer({ min: 0, max: 10_000 })), { maxLength: 300 });
    fc.assert(fc.property(steps, (moves) => {
      const window = new ReplayWindow(96);
      const seen = new Set<number>();
      let highest = 0;
      for (const move of moves) {
        const number = Math.max(0, highest + move);
        const isNew = !seen.has(number) && number > highest - 96;
        assert.equal(window.take(number), isNew);
        if (isNew) seen.add(number);
        highest = Math.max(highest, number);
      }
    }));
  });
});

describe("a replay guard", () => {
  test("keeps the callers apart", () => {
    const guard = new ReplayGuard({ keepMs: 1000 });
    assert.deepEqual([guard.take("a", 1), guard.take("b", 1), guard.take("a", 1), guard.take("a", 2)], ["new", "new", "seen", "new"]);
  });

  test("forgets a caller that has been idle for long enough, and no sooner", () => {
    let at = 0;
    const guard = new ReplayGuard({ keepMs: 120_000, clock: () => at });
    guard.take("a", 1);
    at = 120_000;
    guard.take("b", 1);
    assert.deepEqual([guard.size, guard.take("a", 1)], [2, "seen"]);
    at = 122_000;
    guard.take("c", 1);
    assert.equal(guard.size, 2);
  });

  test("does not take a replay for a sign of life", () => {
    let at = 0;
    const guard = new ReplayGuard({ keepMs: 120_000, clock: () => at });
    guard.take("a", 1);
    at = 100_000;
    guard.take("a", 1);
    at = 125_000;
    guard.take("b", 1);
    assert.equal(guard.size, 1);
  });

  test("remembers so many callers and no more, and makes room when some have been idle", () => {
    let at = 0;
    const guard = new ReplayGuard({ keepMs: 1000, maxCallers: 3, clock: () => at });
    for (const caller of ["a", "b", "c"]) assert.equal(guard.take(caller, 1), "new");
    assert.deepEqual([guard.take("d", 1), guard.take("a", 2)], ["full", "new"]);
    at = 5_000;
    assert.equal(guard.take("d", 1), "new");
    assert.equal(guard.size, 1);
  });
});
