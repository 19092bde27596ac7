import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { setImmediate as eventLoopTurn } from "node:timers/promises";
import { MeshCancelledError, MeshTimeoutError } from "#mesh/errors.js";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { Deadline } from "#mesh/pipeline/deadline.js";
import { TimerWheel } from "#mesh/pipeline/timer-wheel.js";
import { YoungRuns } from "#mesh/pipeline/young-runs.js";

interface Fixture {
  readonly wheel: TimerWheel;
  readonly parent: Cancellation;
  /** Names of what has ended, in order. */
  readonly ended: string[];
  run(name: string, work: Promise<unknown>, budgetMs?: number): Promise<unknown>;
}

function fixture(t: TestContext): Fixture {
  const [wheel, parent, young, ended] = [new TimerWheel(), new Cancellation(), new YoungRuns(), [] as string[]];
  t.after(() => wheel.close());
  return {
    wheel, parent, ended,
    run: (name, work, budgetMs = 5_000) => {
      const limits = { wheel, deadline: new Deadline(budgetMs), cancellation: new Cancellation(parent), action: name };
      return young.settleWithin(work, limits, { end: () => void ended.push(name) });
    },
  };
}

/** A promise to be settled by hand. */
function pending(): { promise: Promise<unknown>; resolve: (value: unknown) => void } {
  let resolve!: (value: unknown) => void;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}

test("what ends in its turn of the event loop never enters the wheel; what does not is limited from the next turn on", async (t) => {
  const { wheel, ended, run } = fixture(t);
  const works = Array.from({ length: 5 }, pending);
  const results = works.map(({ promise }, index) => run(`${index}`, promise));
  for (const index of [1, 4, 0]) works[index]!.resolve(index);
  assert.deepEqual(await Promise.all([1, 4, 0].map((index) => results[index])), [1, 4, 0]);
  assert.deepEqual([ended, wheel.size], [["1", "4", "0"], 0]);
  await eventLoopTurn();
  assert.equal(wheel.size, 2);
  for (const index of [2, 3]) works[index]!.resolve(index);
  assert.deepEqual(await Promise.all([results[2], results[3]]), [2, 3]);
  assert.deepEqual([ended, wheel.size], [["1", "4", "0", "2", "3"], 0]);
});

test("a failure in the same turn is passed on, and ends the run once", async (t) => {
  const { ended, run } = fixture(t);
  await assert.rejects(run("fails", Promise.reject(new Error("no"))), /^Error: no$/);
  await eventLoopTurn();
  assert.deepEqual(ended, ["fails"]);
});

test("a run that is cancelled in its turn is cancelled, with a result in the same turn too", async (t) => {
  const { wheel, parent, ended, run } = fixture(t);
  const [quick, slow] = [run("quick", Promise.resolve("result")), run("slow", pending().promise)];
  const cancelled = [quick, slow].map((result) => assert.rejects(result, MeshCancelledError));
  parent.abort("enough");
  await Promise.all(cancelled);
  assert.deepEqual([ended, wheel.size], [["quick"], 0]);
});

test("a deadline that is past when the turn is over ends a run at once, before a result that comes in the next turn", async (t) => {
  const { run } = fixture(t);
  const late = run("late", eventLoopTurn().then(() => eventLoopTurn("result")), 1);
  const until = performance.now() + 5;
  while (performance.now() < until);
  await assert.rejects(late, MeshTimeoutError);
});
