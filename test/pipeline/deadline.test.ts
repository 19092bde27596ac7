import assert from "node:assert/strict";
import { test } from "node:test";
import { Deadline, now } from "#mesh/pipeline/deadline.js";

test("a deadline within another one ends with the sooner of the two", () => {
  const outer = new Deadline(100);
  assert.ok(Deadline.within(outer, 5_000).remainingMs() <= 100);
  assert.ok(Deadline.within(outer, 50).remainingMs() <= 50);
  assert.equal(Deadline.within(null, 250).budgetMs, 250);
});

test("the remaining time is never below zero", () => {
  assert.equal(new Deadline(10, now() - 1_000).remainingMs(), 0);
});

test("the budget that messages name is in whole ms", () => {
  const budget = Deadline.within(new Deadline(100), 5_000).budgetMs;
  assert.equal(budget, Math.round(budget));
});
