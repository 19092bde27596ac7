import assert from "node:assert/strict";
import { test } from "node:test";
import { ActionLoad, CROWD } from "#mesh/mesh/action-load.js";
import { LONGEST_ON_WIRE } from "#mesh/mesh/wire-frames.js";
import { EXPECTED_FOR_MS, LargeAnswers } from "#mesh/mesh/large-answers.js";

const inTime = { budgetMs: 1_000, at: 0, remainingMs: () => 500 };
const late = { budgetMs: 1_000, at: 0, remainingMs: () => 0 };

interface Begun {
  readonly wasCalm: boolean;
  readonly at: number;
}

/** A handler's pool of connections, on a clock of its own: requests end one after the other. */
class Pool {
  readonly load = new ActionLoad();
  readonly #running: Begun[] = [];
  now = 0;

  begin(count: number): this {
    for (let i = 0; i < count; i++) this.#running.push({ wasCalm: this.load.begin(), at: this.now });
    return this;
  }

  /** Ends the oldest ones, each `ms` after the one before. */
  end(count: number, ms: number, deadline = inTime): this {
    for (const { wasCalm, at } of this.#running.splice(0, count)) this.load.end(wasCalm, at, (this.now += ms), deadline);
    return this;
  }

  get size(): number {
    return this.#running.length;
  }
}

test("a crowd of which some have died waits as long as those before take, less what one takes in calm times", () => {
  const pool = new Pool();
  for (let i = 0; i < 100; i++) pool.begin(1).end(1, 20);
  pool.begin(200).end(40, 5).end(60, 5, late);
  assert.equal(pool.size, 100);
  const { expectedWaitMs } = pool.load;
  const longestCalmMs = 32 * 5;
  assert.ok(expectedWaitMs > 500 - longestCalmMs && expectedWaitMs < 500 - 20, `${expectedWaitMs}ms`);
  assert.equal(Math.round(pool.begin(100).load.expectedWaitMs - expectedWaitMs), 500, "it grows with each that comes");
});

test("a crowd that is slow, and dies of nothing, waits for nothing", () => {
  assert.equal(new Pool().begin(500).end(300, 50).load.expectedWaitMs, 0);
});

test("few that die are no crowd", () => {
  assert.equal(new Pool().begin(CROWD - 1).end(CROWD - 1, 500, late).begin(CROWD - 1).load.expectedWaitMs, 0);
});

test("when a crowd has dispersed, the next one is judged anew", () => {
  const pool = new Pool().begin(200).end(100, 10, late);
  assert.ok(pool.load.expectedWaitMs > 0);
  pool.end(100, 10).begin(300);
  assert.equal(pool.load.expectedWaitMs, 0);
});

test("requests that end in one turn of the event loop say nothing of the pace", () => {
  const pool = new Pool().begin(300).end(100, 0, late);
  assert.equal(pool.load.expectedWaitMs, 0);
  pool.end(1, 100);
  assert.ok(pool.load.expectedWaitMs > 0 && pool.load.expectedWaitMs < 300);
});

test("one answer that is large for a wire lets others of its action be expected, for a while", (t) => {
  const answers = new LargeAnswers();
  answers.note("v1.x.large", LONGEST_ON_WIRE + 1);
  answers.note("v1.x.small", LONGEST_ON_WIRE);
  const begunAt = performance.now();
  const clock = t.mock.method(performance, "now", () => begunAt + 1_000);
  assert.deepEqual([answers.expects("v1.x.large"), answers.expects("v1.x.small")], [true, false]);
  answers.note("v1.x.large", 10);
  assert.equal(answers.expects("v1.x.large"), true);
  clock.mock.mockImplementation(() => begunAt + EXPECTED_FOR_MS + 1_000);
  assert.equal(answers.expects("v1.x.large"), false);
});
