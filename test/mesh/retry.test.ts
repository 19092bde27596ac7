import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MeshTimeoutError } from "@chimpbase/mesh";
import { callFixture, peer, TestActions, TestDirectory } from "./call-fixture.js";

const never = (): Promise<never> => new Promise(() => undefined);

function failing(times: number, error: unknown = new Error("not yet")) {
  let tries = 0;
  const actions = new TestActions().add("v1.a.x", () => { if (tries++ < times) throw error; return "done"; });
  return { actions, tries: () => tries };
}

describe("retry", () => {
  test("counts the tries after the first", async () => {
    const { actions, tries } = failing(2);
    assert.equal(await callFixture({ actions }).call("v1.a.x", {}, { retry: { attempts: 2, delayMs: 1 } }), "done");
    assert.equal(tries(), 3);
  });

  test("ends with the last failure", async () => {
    const { actions, tries } = failing(9);
    await assert.rejects(callFixture({ actions }).call("v1.a.x", {}, { retry: { attempts: 3, delayMs: 1 } }), { message: "not yet" });
    assert.equal(tries(), 4);
  });

  test("is off unless asked for, and on for all calls by defaultRetries", async () => {
    const once = failing(1);
    await assert.rejects(callFixture({ actions: once.actions }).call("v1.a.x"));
    const twice = failing(1);
    assert.equal(await callFixture({ actions: twice.actions, defaults: { retries: 1 } }).call("v1.a.x"), "done");
    const off = failing(1);
    await assert.rejects(callFixture({ actions: off.actions, defaults: { retries: 1 } }).call("v1.a.x", {}, { retry: { attempts: 0 } }));
  });

  test("may be declared by the action", async () => {
    let tries = 0;
    const actions = new TestActions().add("v1.a.x", () => { if (tries++ < 1) throw new Error("no"); return "done"; }, { retry: { attempts: 1, delayMs: 1 } });
    assert.equal(await callFixture({ actions }).call("v1.a.x"), "done");
  });

  test("stops at an error that is not retryable", async () => {
    const { actions, tries } = failing(9, Object.assign(new Error("never"), { retryable: false }));
    await assert.rejects(callFixture({ actions }).call("v1.a.x", {}, { retry: { attempts: 5, delayMs: 1 } }), { message: "never" });
    assert.equal(tries(), 1);
  });

  test("repeats on whatever else is thrown", async () => {
    for (const error of [null, "text", 0, { retryable: "no" }]) {
      const { actions, tries } = failing(1, error);
      assert.equal(await callFixture({ actions }).call("v1.a.x", {}, { retry: { attempts: 1, delayMs: 1 } }), "done");
      assert.equal(tries(), 2);
    }
  });

  test("does not outlive the budget: the timeout names it, and what failed last", async () => {
    const { actions } = failing(1e9);
    const began = performance.now();
    await assert.rejects(callFixture({ actions }).call("v1.a.x", {}, { timeoutMs: 100, retry: { attempts: 1000, delayMs: 60, factor: 1, jitter: 0 } }), (error) => {
      return error instanceof MeshTimeoutError && error.message === "mesh call timed out after 100ms: v1.a.x" && (error.cause as Error).message === "not yet";
    });
    const took = performance.now() - began;
    assert.ok(took >= 99 && took < 1000, String(took));
  });

  test("waits longer each time", async () => {
    const times: number[] = [];
    const actions = new TestActions().add("v1.a.x", () => { times.push(performance.now()); throw new Error("no"); });
    await assert.rejects(callFixture({ actions }).call("v1.a.x", {}, { retry: { attempts: 2, delayMs: 20, factor: 3, jitter: 0 } }));
    assert.ok(times[1]! - times[0]! >= 20);
    assert.ok(times[2]! - times[1]! >= 60);
  });
});

describe("the time of one attempt", () => {
  test("is an even share of what remains, so that a peer that hangs leaves time for another", async () => {
    const shares: number[] = [];
    const { call } = callFixture({
      directory: new TestDirectory().serve("v1.s.x", peer("p1"), peer("p2")),
      answer: (_peer, _request, { remainingMs }) => { shares.push(remainingMs); return shares.length === 1 ? never() : "second"; },
    });
    assert.equal(await call("v1.s.x", {}, { timeoutMs: 300, retry: { attempts: 2, delayMs: 1 } }), "second");
    assert.ok(shares[0]! > 80 && shares[0]! <= 100, String(shares));
    assert.ok(shares[1]! > 20 && shares[1]! <= 100, String(shares));
  });

  test("is attemptTimeoutMs where given, and never beyond the budget", async () => {
    const shares: number[] = [];
    const { call } = callFixture({
      directory: new TestDirectory().serve("v1.s.x", peer("p1")),
      answer: (_peer, _request, { remainingMs }) => { shares.push(remainingMs); return never(); },
    });
    await assert.rejects(call("v1.s.x", {}, { timeoutMs: 2000, attemptTimeoutMs: 20, retry: { attempts: 1, delayMs: 1 } }), { message: "mesh call timed out after 20ms: v1.s.x" });
    await assert.rejects(call("v1.s.x", {}, { timeoutMs: 30, attemptTimeoutMs: 5000 }), { message: "mesh call timed out after 30ms: v1.s.x" });
    assert.ok(shares.every((share) => share <= 30), String(shares));
  });

  test("at its end aborts that attempt's handler only", async () => {
    const signals: AbortSignal[] = [];
    const actions = new TestActions().add("v1.a.x", (ctx) => { signals.push(ctx.signal); return signals.length === 1 ? never() : "done"; });
    const { call } = callFixture({ actions });
    assert.equal(await call("v1.a.x", {}, { attemptTimeoutMs: 20, retry: { attempts: 1, delayMs: 1 } }), "done");
    assert.deepEqual(signals.map((signal) => signal.aborted), [true, false]);
  });
});
