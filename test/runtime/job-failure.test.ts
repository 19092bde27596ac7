import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { planTakeover, retryDelay } from "#mesh/runtime/job-failure.js";

describe("what becomes of failed jobs", () => {
  it("pauses double from attempt to attempt, up to an hour, and part at random by a quarter at most", () => {
    for (const [attempt, full] of [[1, 1_000], [2, 2_000], [5, 16_000], [40, 3_600_000]] as const) {
      const delays = Array.from({ length: 50 }, () => retryDelay(attempt, 1_000));
      assert.ok(delays.every((delay) => delay >= full * 0.75 && delay <= full));
      assert.ok(new Set(delays).size > 1);
    }
  });

  it("a lost job is ready again at once, from its second loss or before its last attempt alone, and then dead", () => {
    const lane = (attempt: number, maxAttempts: number) => {
      const job = { id: "1", token: "t", fence: 0, lane: "q:x", event: null, attempt, history: "broken", holder: "n", leaseEndedAtMs: 0 };
      const plan = planTakeover(job, maxAttempts);
      return plan.error === null ? plan.lane : "dead";
    };
    assert.deepEqual([1, 2, 4, 5].map((attempt) => lane(attempt, 5)), ["q:x", "s:q:x", "s:q:x", "dead"]);
    assert.deepEqual([1, 2].map((attempt) => lane(attempt, 2)), ["s:q:x", "dead"]);
    assert.equal(lane(1, 1), "dead");
  });
});
