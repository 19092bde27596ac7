import assert from "node:assert/strict";
import { test } from "node:test";
import { EXPECTED_FOR_MS, LargeAnswers } from "#mesh/mesh/large-answers.js";
import { LONGEST_ON_WIRE } from "#mesh/mesh/wire-frames.js";

test("one answer that is large for a wire lets others of its action be expected, for a while", (t) => {
  const answers = new LargeAnswers();
  answers.note("v1.x.large", "x".repeat(LONGEST_ON_WIRE + 1));
  answers.note("v1.x.small", "x".repeat(LONGEST_ON_WIRE));
  answers.note("v1.x.wide", "漢".repeat(LONGEST_ON_WIRE / 2));
  answers.note("v1.x.bytes", Buffer.alloc(LONGEST_ON_WIRE + 1));
  const begunAt = performance.now();
  const clock = t.mock.method(performance, "now", () => begunAt + 1_000);
  assert.deepEqual(["large", "small", "wide", "bytes"].map((name) => answers.expects(`v1.x.${name}`)), [true, false, true, true]);
  answers.note("v1.x.large", "small");
  assert.equal(answers.expects("v1.x.large"), true);
  clock.mock.mockImplementation(() => begunAt + EXPECTED_FOR_MS + 1_000);
  assert.equal(answers.expects("v1.x.large"), false);
});
