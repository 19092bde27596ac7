import assert from "node:assert/strict";
import { test } from "node:test";
import { answered } from "#mesh/runtime/answer-limit.js";

test("an answer in time passes through, an error too", async () => {
  assert.equal(await answered(Promise.resolve(1), 1_000), 1);
  await assert.rejects(answered(Promise.reject(new Error("no")), 1_000), /no/);
});

test("without an answer the limit is the error, and what comes later harms nobody", async () => {
  let fail: (error: Error) => void = () => undefined;
  const query = new Promise<never>((_resolve, reject) => (fail = reject));
  await assert.rejects(answered(query, 10), { code: "DATABASE_UNAVAILABLE", retryable: true, message: /10 ms/ });
  fail(new Error("late"));
});
