import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createConsumer } from "#mesh/runtime/consumers.js";
import { AHEAD_MS, Lane, MAX_AHEAD, MAX_AHEAD_BYTES, soloLane } from "#mesh/runtime/lane.js";
import type { WorkerOptions } from "#mesh/contract/registration.js";
import { TEST_DEFAULTS, worker } from "./worker-nodes.js";

const SLOTS = 4;
const MIB = 1024 ** 2;

function lane(options: WorkerOptions = {}, key = "q:work"): Lane {
  const created = new Lane(key);
  created.configure([createConsumer(worker("work", () => undefined, { concurrency: SLOTS, ...options }), TEST_DEFAULTS)], SLOTS);
  return created;
}

/** How many jobs it claims ahead of its slots when those before took so long, and were so large. */
function ahead(durationMs: number, bytes: number, of = lane()): number {
  of.note(durationMs, bytes);
  return of.quota(SLOTS) - SLOTS;
}

describe("a lane claims ahead", () => {
  test("nothing, as long as it does not know its pace", () => assert.equal(lane().quota(SLOTS), SLOTS));

  test("what all its slots can do in 100 ms", () => {
    assert.equal(ahead(10, 1), SLOTS * AHEAD_MS / 10);
    assert.equal(ahead(SLOTS * AHEAD_MS + 1, 1), 0);
  });

  test("so many jobs at most, however fast they are", () => assert.equal(ahead(0, 1), MAX_AHEAD));

  test("so many bytes at most, by the size of the jobs before, however fast they are", () => {
    assert.equal(ahead(0, MIB), MAX_AHEAD_BYTES / MIB);
    assert.equal(ahead(0, MAX_AHEAD_BYTES + 1), 0);
  });

  test("by a mean that follows the newest jobs", () => {
    const changing = lane();
    assert.equal(ahead(0, 1, changing), MAX_AHEAD);
    for (let n = 0; n < 100; n++) changing.note(0, MIB);
    assert.equal(changing.quota(SLOTS) - SLOTS, MAX_AHEAD_BYTES / MIB);
  });

  test("nothing where a crash would cost each claimed job its only attempt, or jobs that may be killing the process", () => {
    assert.equal(ahead(0, 1, lane({ maxAttempts: 1 })), 0);
    const solo = lane({}, soloLane("q:work"));
    solo.note(0, 1);
    assert.equal(solo.quota(SLOTS), 1);
  });
});
