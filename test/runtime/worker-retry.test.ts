import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { MeshError, MeshValidationError } from "@chimpbase/mesh";
import type { HistoryEntry } from "#mesh/runtime/job-failure.js";
import { queueLane } from "#mesh/storage/lanes.js";
import { until } from "../support/wait.js";
import { Cluster, balanced, worker } from "./worker-nodes.js";

describe("failed jobs", () => {
  let cluster: Cluster;
  beforeEach(async () => { cluster = await Cluster.open(); });
  afterEach(() => cluster.close());

  const deadLetter = async () => {
    const dead = await until(async () => (await cluster.deadLetters())[0]);
    return { ...dead, history: JSON.parse(dead.history) as HistoryEntry[], error: JSON.parse(dead.error!) as HistoryEntry["error"] };
  };

  it("are tried again with growing pauses, and end as dead letters with error and history", async () => {
    const { engine, nodeId } = await cluster.node({ maxAttempts: 4, retryDelayMs: 50 });
    const at: number[] = [];
    const attempts: unknown[] = [];
    await engine.attach([balanced("g", "x.y", (scope) => {
      at.push(performance.now());
      attempts.push(scope.event?.attempt);
      throw Object.assign(new TypeError(`no luck ${at.length}`), { code: "E_LUCK" });
    })]);
    await engine.start();
    await cluster.emitTo("g", "x.y", "x.y", { n: 1 });
    const dead = await deadLetter();
    assert.deepEqual(attempts, [1, 2, 3, 4]);
    const pauses = at.slice(1).map((time, index) => time - at[index]!);
    for (const [index, pause] of pauses.entries()) assert.ok(pause >= 50 * 2 ** index * 0.75, `pause ${index}: ${pause} ms`);
    assert.deepEqual(dead.error, { name: "TypeError", message: "no luck 4", code: "E_LUCK" });
    assert.deepEqual(dead.history.map(({ attempt, error }) => [attempt, error.message]), [1, 2, 3, 4].map((n) => [n, `no luck ${n}`]));
    assert.ok(dead.history.every((entry) => entry.nodeId === nodeId && !Number.isNaN(Date.parse(entry.at))));
    assert.ok(await cluster.settled());
  });

  it("succeed at a later attempt without a trace", async () => {
    const { engine } = await cluster.node();
    let runs = 0;
    await engine.attach([worker("flaky", () => { if (++runs < 3) throw new Error("not yet"); })]);
    await engine.start();
    await cluster.enqueue("flaky", [1]);
    await until(() => cluster.settled());
    assert.equal(runs, 3);
    assert.deepEqual(await cluster.deadLetters(), []);
  });

  it("go straight to the dead letters where validation refuses them", async () => {
    const { engine } = await cluster.node();
    let runs = 0;
    await engine.attach([worker("strict", () => {
      runs++;
      throw new MeshValidationError("qty must be positive", [{ path: "qty", message: "must be positive", constraint: "isPositive" }]);
    })]);
    await engine.start();
    await cluster.enqueue("strict", [{ qty: -1 }]);
    const dead = await deadLetter();
    assert.equal(runs, 1);
    assert.equal(dead.error.code, "VALIDATION_FAILED");
    assert.equal(dead.history.length, 1);
  });

  it("are tried again even where the error says that a caller should not", async () => {
    const { engine } = await cluster.node();
    let runs = 0;
    await engine.attach([worker("stubborn", () => { if (++runs === 1) throw new MeshError("no", { retryable: false }); })]);
    await engine.start();
    await cluster.enqueue("stubborn", [1]);
    await until(() => cluster.settled());
    assert.equal(runs, 2);
  });

  it("keep to attempts and delay of their own queue", async () => {
    const { engine } = await cluster.node({ maxAttempts: 5, retryDelayMs: 60_000 });
    let runs = 0;
    await engine.attach([worker("hasty", () => { runs++; throw new Error("no"); }, { maxAttempts: 2, retryDelayMs: 1 })]);
    await engine.start();
    await cluster.enqueue("hasty", [1]);
    await deadLetter();
    assert.equal(runs, 2);
  });

  it("where one of several handlers fails, run all of them again", async () => {
    const { engine } = await cluster.node();
    const runs: string[] = [];
    await engine.attach([
      balanced("g", "x.*", () => runs.push("first")),
      balanced("g", "**", () => { runs.push("second"); if (runs.length < 3) throw new Error("no"); }, { maxAttempts: 1 }),
    ]);
    await engine.start();
    await cluster.emitTo("g", "x.*", "x.y", 1);
    await until(() => cluster.settled());
    assert.deepEqual(runs, ["first", "second", "first", "second"]);
  });

  it("do not hold up others of their lane", async () => {
    const { engine } = await cluster.node({ retryDelayMs: 60_000 });
    const done: unknown[] = [];
    await cluster.enqueue("poisoned", ["poison", ...Array(50).fill("fine")]);
    await engine.attach([worker("poisoned", (_scope, payload) => { if (payload === "poison") throw new Error("no"); done.push(payload); }, { concurrency: 1 })]);
    await engine.start();
    await until(() => done.length === 50);
    await until(async () => (await cluster.jobs()).length === 0);
    assert.equal((await cluster.deferred()).length, 1);
  });

  it("that cannot be read are dead letters, and harm no other", async () => {
    const { engine } = await cluster.node();
    let runs = 0;
    await cluster.insert(queueLane("odd"), "odd", null, null, ["{not json", "1"]);
    const [id] = await cluster.enqueue("odd", [2]);
    await cluster.storage.query("UPDATE _chimpbase_mesh_jobs SET headers = 'null' WHERE id = $1", [id]);
    await engine.attach([worker("odd", () => void runs++)]);
    await engine.start();
    await until(() => cluster.settled());
    assert.equal(runs, 1);
    const dead = await cluster.deadLetters();
    assert.deepEqual(dead.map((row) => (JSON.parse(row.error!) as { name: string }).name), ["CorruptJobError", "CorruptJobError"]);
  });

  it("keep a bounded history of bounded messages, whatever was thrown", async () => {
    const { engine } = await cluster.node();
    const thrown: unknown[] = [new Error("x".repeat(5_000)), "text", undefined, { odd: true }, new Error("nul \u0000 and lone \ud800")];
    let runs = 0;
    await engine.attach([worker("long", () => { throw thrown[runs++ % thrown.length]; }, { maxAttempts: 25, retryDelayMs: 0 })]);
    await engine.start();
    await cluster.enqueue("long", [1]);
    const dead = await deadLetter();
    assert.equal(runs, 25);
    assert.equal(dead.history.length, 20);
    assert.deepEqual([dead.history[0]!.attempt, dead.history[19]!.attempt], [6, 25]);
    assert.ok(dead.history.every(({ error }) => error.message.length <= 1_025));
  });

  it("cancelled by the drain limit go back without a failed attempt", async () => {
    const { engine, drainLimit } = await cluster.node();
    let started = false;
    await engine.attach([worker("long", (scope) => new Promise((_resolve, reject) => {
      started = true;
      scope.cancellation.signal.addEventListener("abort", () => reject(new Error("cancelled")));
    }))]);
    await engine.start();
    await cluster.enqueue("long", [1]);
    await until(() => started);
    await engine.drain();
    drainLimit.abort(new Error("drain limit"));
    await until(async () => (await cluster.jobs())[0]?.token === null);
    assert.deepEqual(await cluster.deferred(), []);
    assert.equal((await cluster.jobs())[0]!.history, "[]");
  });
});
