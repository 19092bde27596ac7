import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { MeshActionNotFoundError, MeshCallError, MeshCancelledError, MeshConfigurationError, MeshError, MeshNoAvailableNodeError, MeshTimeoutError } from "@chimpbase/mesh";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { Deadline } from "#mesh/pipeline/deadline.js";
import { markUndelivered, isUndelivered } from "#mesh/mesh/undelivered.js";
import type { Caller } from "#mesh/contract/context.js";
import { until } from "../support/wait.js";
import { callFixture, peer, TestActions, TestDirectory, type TestContext } from "./call-fixture.js";

const never = (): Promise<never> => new Promise(() => undefined);

describe("a local call", () => {
  test("hands over the very arguments and the very result", async () => {
    const args = [1];
    const { call } = callFixture({ actions: new TestActions().add("v1.echo.back", (_ctx, given) => given) });
    assert.equal(await call("v1.echo.back", args), args);
    assert.equal(await call("v1.echo.back", null), null);
    assert.equal(await call("v1.echo.back"), undefined);
  });

  test("rejects with what the handler threw, even if that is no error", async () => {
    const thrown = new RangeError("no");
    const { call } = callFixture({ actions: new TestActions().add("v1.a.error", () => { throw thrown; }).add("v1.a.text", () => { throw "text"; }) });
    await assert.rejects(call("v1.a.error"), (error) => error === thrown);
    await assert.rejects(call("v1.a.text"), (error) => error === "text");
  });

  test("tells the handler who called, how deep, and under which request", async () => {
    const seen: { caller: Caller | null; level: number; requestId: string }[] = [];
    const actions = new TestActions()
      .add("v1.a.outer", (ctx) => { seen.push(ctx); return ctx.call("v1.a.inner"); })
      .add("v1.a.inner", (ctx) => void seen.push(ctx));
    await callFixture({ actions }).call("v1.a.outer", {}, {}, { requestId: "r1" });
    assert.deepEqual(seen.map(({ caller, level, requestId }) => ({ caller, level, requestId })), [
      { caller: { nodeId: "self", action: null }, level: 1, requestId: "r1" },
      { caller: { nodeId: "self", action: "v1.a.outer" }, level: 2, requestId: "r1" },
    ]);
  });

  test("merges meta for what follows and leaves the caller's alone", async () => {
    const seen: unknown[] = [];
    const actions = new TestActions()
      .add("v1.a.outer", async (ctx) => { await ctx.call("v1.a.inner", {}, { meta: { b: 2 } }); seen.push(ctx.meta); })
      .add("v1.a.inner", (ctx) => void seen.push(ctx.meta));
    await callFixture({ actions }).call("v1.a.outer", {}, { meta: { a: 1 } });
    assert.deepEqual(seen, [{ a: 1, b: 2 }, { a: 1 }]);
  });

  test("keeps a __proto__ key out of meta", async () => {
    const { call } = callFixture({ actions: new TestActions().add("v1.a.meta", (ctx) => ctx.meta) });
    const meta = await call("v1.a.meta", {}, { meta: JSON.parse('{"__proto__":{"admin":true},"a":1}') }) as Record<string, unknown>;
    assert.deepEqual(Object.getOwnPropertyNames(meta), ["a"]);
    assert.equal(meta.admin, undefined);
  });

  test("leaves nothing behind: no timer, no listener on the caller's cancellation", async () => {
    let listeners = 0;
    const parent = new Cancellation();
    const counting = { aborted: false, reason: undefined, signal: parent.signal, onAbort: (listener: (reason: unknown) => void) => {
      listeners++;
      const off = parent.onAbort(listener);
      return () => { listeners--; off(); };
    } };
    const actions = new TestActions().add("v1.a.ok", (ctx) => void ctx.signal).add("v1.a.bad", () => { throw new Error("bad"); });
    const { call, wheel } = callFixture({ actions, directory: new TestDirectory().serve("v1.r.x", peer("p1")) });
    await call("v1.a.ok", {}, {}, { cancellation: counting });
    await call("v1.r.x", {}, {}, { cancellation: counting });
    await call("v1.a.ok", {}, { signal: new AbortController().signal, retry: { attempts: 1 } }, { cancellation: counting });
    await assert.rejects(call("v1.a.bad", {}, { retry: { attempts: 1, delayMs: 1 } }, { cancellation: counting }));
    assert.equal(listeners, 0);
    assert.equal(wheel.size, 0);
  });
});

describe("the budget of a call", () => {
  test("ends the call at its deadline with a timeout, and aborts the handler's signal", async () => {
    let signal: AbortSignal | undefined;
    const { call } = callFixture({ actions: new TestActions().add("v1.a.hang", (ctx) => { signal = ctx.signal; return never(); }) });
    const error = await call("v1.a.hang", {}, { timeoutMs: 30 }).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof MeshTimeoutError);
    assert.equal(error.message, "mesh call timed out after 30ms: v1.a.hang");
    assert.equal(signal?.aborted, true);
    assert.equal(signal?.reason, error);
  });

  test("is never more than what remains to the caller", async () => {
    const actions = new TestActions()
      .add("v1.a.outer", (ctx) => ctx.call("v1.a.inner", {}, { timeoutMs: 60_000 }))
      .add("v1.a.inner", (ctx) => ctx.deadline);
    const remaining = await callFixture({ actions }).call("v1.a.outer", {}, { timeoutMs: 1000 }) as number;
    assert.ok(remaining > 0 && remaining <= 1000, String(remaining));
  });

  test("falls back from the option to the action's to the mesh's", async () => {
    const actions = new TestActions().add("v1.a.own", (ctx) => ctx.deadline, { timeoutMs: 700 }).add("v1.a.plain", (ctx) => ctx.deadline);
    const { call } = callFixture({ actions, defaults: { timeoutMs: 900 } });
    const within = (value: unknown, most: number) => assert.ok((value as number) > most - 200 && (value as number) <= most, `${String(value)} of ${most}`);
    within(await call("v1.a.own"), 700);
    within(await call("v1.a.plain"), 900);
    within(await call("v1.a.plain", {}, { timeoutMs: 400 }), 400);
    within(await call("v1.a.own", {}, { timeoutMs: 5000 }), 700);
  });

  test("is what the action declares on a peer, where the caller says nothing", async () => {
    const directory = new TestDirectory().serve("v1.r.x", peer("p1"));
    directory.policies.set("v1.r.x", { timeoutMs: 60_000, retry: { attempts: 1, delayMs: 0 } });
    const given: number[] = [];
    const { call } = callFixture({ directory, answer: (_peer, _request, { remainingMs }) => { given.push(remainingMs); throw new Error("no"); } });
    await assert.rejects(call("v1.r.x"));
    assert.equal(given.length, 2);
    assert.ok((given[1] ?? 0) > 50_000, String(given));
    await assert.rejects(call("v1.r.x", {}, { timeoutMs: 400, retry: { attempts: 0 } }));
    assert.equal(given.length, 3);
    assert.ok((given[2] ?? 999) <= 400);
  });

  test("fails before anything is sent where it is spent", async () => {
    const { call, transport } = callFixture({ directory: new TestDirectory().serve("v1.r.x", peer("p1")) });
    await assert.rejects(call("v1.r.x", {}, { timeoutMs: 0 }), MeshTimeoutError);
    await assert.rejects(call("v1.r.x", {}, {}, { deadline: new Deadline(100, performance.now() - 1) }), MeshTimeoutError);
    assert.deepEqual(transport.asked, []);
  });

  test("travels to a peer as what remains, and aborts the request at its end", async () => {
    let aborted = false;
    const { call } = callFixture({
      directory: new TestDirectory().serve("v1.r.x", peer("p1")),
      answer: (_peer, _request, { remainingMs, signal }) => {
        assert.ok(remainingMs > 0 && remainingMs <= 40);
        signal.addEventListener("abort", () => { aborted = true; });
        return never();
      },
    });
    await assert.rejects(call("v1.r.x", {}, { timeoutMs: 40 }), { name: "MeshTimeoutError", code: "TIMEOUT", nodeId: "p1" });
    assert.equal(aborted, true);
  });
});

test("a deadline that the peer reports first is the caller's own, and one of its action stays what it is", async () => {
  const late = (ms: number) => callFixture({
    directory: new TestDirectory().serve("v1.r.x", peer("p1")),
    answer: async () => { await sleep(ms); throw new MeshTimeoutError("v1.r.x", 7, { nodeId: "p1" }); },
  });
  await assert.rejects(late(45).call("v1.r.x", {}, { timeoutMs: 50 }), { message: "mesh call timed out after 50ms: v1.r.x" });
  await assert.rejects(late(1).call("v1.r.x", {}, { timeoutMs: 5000 }), { message: "mesh call timed out after 7ms: v1.r.x" });
});

describe("cancellation", () => {
  test("by one signal of many calls ends them all, and warns of no leak", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    const controller = new AbortController();
    const { call } = callFixture({ actions: new TestActions().add("v1.a.hang", never) });
    const pending = Array.from({ length: 50 }, () => call("v1.a.hang", {}, { signal: controller.signal }));
    await sleep(0);
    controller.abort();
    for (const { status } of await Promise.allSettled(pending)) assert.equal(status, "rejected");
    process.off("warning", onWarning);
    assert.deepEqual(warnings, []);
  });

  test("by the caller's signal rejects the call and aborts the handler", async () => {
    const controller = new AbortController();
    let reason: unknown;
    const { call } = callFixture({ actions: new TestActions().add("v1.a.hang", (ctx) => {
      ctx.signal.addEventListener("abort", () => { reason = ctx.signal.reason; });
      return never();
    }) });
    const pending = call("v1.a.hang", {}, { signal: controller.signal, retry: { attempts: 3 } });
    controller.abort(new Error("enough"));
    await assert.rejects(pending, (error) => error instanceof MeshCancelledError && (error.cause as Error).message === "enough");
    assert.equal((reason as Error).message, "enough");
  });

  test("of the caller cancels the calls that it has made", async () => {
    const controller = new AbortController();
    let inner: Promise<unknown> | undefined;
    const actions = new TestActions()
      .add("v1.a.outer", (ctx) => (inner = ctx.call("v1.a.inner")))
      .add("v1.a.inner", never);
    const pending = callFixture({ actions }).call("v1.a.outer", {}, { signal: controller.signal });
    await until(() => inner !== undefined);
    controller.abort();
    await assert.rejects(pending, MeshCancelledError);
    await assert.rejects(inner!, { name: "MeshCancelledError", message: "mesh call cancelled: v1.a.inner" });
  });

  test("that has happened already fails before doing anything", async () => {
    let ran = 0;
    const { call } = callFixture({ actions: new TestActions().add("v1.a.x", () => ++ran) });
    const parent = new Cancellation();
    parent.abort("gone");
    await assert.rejects(call("v1.a.x", {}, { signal: AbortSignal.abort() }), MeshCancelledError);
    await assert.rejects(call("v1.a.x", {}, {}, { cancellation: parent }), MeshCancelledError);
    assert.equal(ran, 0);
  });

  test("ends the wait between two attempts, and asks for no fallback", async () => {
    const controller = new AbortController();
    let tries = 0;
    const { call } = callFixture({ actions: new TestActions().add("v1.a.x", () => { tries++; throw new Error("no"); }) });
    const pending = call("v1.a.x", {}, { signal: controller.signal, retry: { attempts: 5, delayMs: 4000, jitter: 0 }, fallback: () => "stand-in" });
    await until(() => tries === 1);
    controller.abort();
    await assert.rejects(pending, MeshCancelledError);
    assert.equal(tries, 1);
  });
});

describe("the choice of a node", () => {
  const directory = () => new TestDirectory().serve("v1.s.x", peer("p1"), peer("p2"));

  test("without anybody who serves the action is an error that says so", async () => {
    await assert.rejects(callFixture().call("v1.s.x"), (error) => error instanceof MeshNoAvailableNodeError && error.message === "no mesh node currently serves action: v1.s.x");
  });

  test("pins the call to a peer, or to this node", async () => {
    const { call, transport } = callFixture({ directory: directory(), actions: new TestActions().add("v1.s.x", () => "here") });
    assert.equal(await call("v1.s.x", {}, { nodeId: "p2" }), "remote");
    assert.deepEqual(transport.asked, ["p2"]);
    assert.equal(await call("v1.s.x", {}, { nodeId: "self" }), "here");
    await assert.rejects(call("v1.s.x", {}, { nodeId: "p9" }), MeshNoAvailableNodeError);
    await assert.rejects(call("v1.s.y", {}, { nodeId: "p1" }), MeshNoAvailableNodeError);
  });

  test("avoids, within a call, the nodes that failed in it, and this node too", async () => {
    let here = 0;
    const { call, transport } = callFixture({
      directory: directory(),
      actions: new TestActions().add("v1.s.x", () => { here++; throw new Error("no"); }),
      answer: () => { throw new Error("no"); },
    });
    await assert.rejects(call("v1.s.x", {}, { retry: { attempts: 2, delayMs: 1 } }));
    assert.equal(here, 1);
    assert.deepEqual([...transport.asked].sort(), ["p1", "p2"]);
  });

  test("comes back to a failed node where there is no other", async () => {
    const { call, transport } = callFixture({ directory: new TestDirectory().serve("v1.s.x", peer("p1")), answer: () => { throw new Error("no"); } });
    await assert.rejects(call("v1.s.x", {}, { retry: { attempts: 2, delayMs: 1 } }));
    assert.deepEqual(transport.asked, ["p1", "p1", "p1"]);
  });

  test("goes on at once, without a retry, from a node that the request never reached", async () => {
    const refused = () => markUndelivered(new MeshCallError("refused"));
    const { call, transport } = callFixture({
      directory: directory(),
      answer: ({ nodeId }) => { if (nodeId === transport.asked[0]) throw refused(); return "second"; },
    });
    assert.equal(await call("v1.s.x"), "second");
    assert.equal(new Set(transport.asked).size, 2);
  });

  test("gives up where no node was reached, and no trace of that stays on the error", async () => {
    const { call, transport } = callFixture({ directory: directory(), answer: () => { throw markUndelivered(new MeshCallError("refused")); } });
    await assert.rejects(call("v1.s.x"), (error) => error instanceof MeshCallError && !isUndelivered(error));
    assert.equal(transport.asked.length, 2);
  });

  test("counts this node only while it serves: an action taken off between two tries is not run", async () => {
    let here = 0;
    const actions = new TestActions().add("v1.s.x", () => { here++; actions.remove("v1.s.x"); throw new Error("no"); });
    await assert.rejects(callFixture({ actions }).call("v1.s.x", {}, { retry: { attempts: 2, delayMs: 1 } }), MeshNoAvailableNodeError);
    assert.equal(here, 1);
  });

  test("sends depth and chain along", async () => {
    const { call, transport } = callFixture({ directory: directory(), actions: new TestActions().add("v1.a.outer", (ctx) => ctx.call("v1.s.x", { q: 1 })) });
    await call("v1.a.outer", {}, { meta: { m: 1 } });
    const [{ args, level, chain, meta }] = transport.requests as [typeof transport.requests[0]];
    assert.deepEqual({ args, level, chain, meta }, { args: { q: 1 }, level: 2, chain: ["v1.a.outer"], meta: { m: 1 } });
  });
});

describe("a chain of calls", () => {
  test("of 100 runs, and of 101 is refused with its names", async () => {
    const actions = new TestActions().add("v1.a.down", (ctx, left) => ((left as number) === 0 ? ctx.level : ctx.call("v1.a.down", (left as number) - 1)));
    const { call } = callFixture({ actions });
    assert.equal(await call("v1.a.down", 99), 100);
    await assert.rejects(call("v1.a.down", 100), (error) => error instanceof MeshError && error.code === "CALL_DEPTH" && /v1\.a\.down → v1\.a\.down/.test(error.message));
  });
});

describe("fallback", () => {
  const failing = new TestActions().add("v1.a.x", () => { throw "text"; });

  test("supplies the result after the last attempt, and gets an error whatever was thrown", async () => {
    let given: Error | undefined;
    const { call } = callFixture({ actions: failing });
    assert.equal(await call("v1.a.x", {}, { fallback: (error) => { given = error; return "stand-in"; } }), "stand-in");
    assert.ok(given instanceof Error);
    assert.equal(given.message, "text");
  });

  test("stands in for a timeout and for a missing node, and its own failure is the call's", async () => {
    const { call } = callFixture({ actions: new TestActions().add("v1.a.hang", never) });
    assert.equal(await call("v1.a.hang", {}, { timeoutMs: 10, fallback: async () => "late" }), "late");
    assert.equal(await call("v1.none.x", {}, { fallback: (error) => (error as MeshError).code }), "NO_AVAILABLE_NODE");
    await assert.rejects(call("v1.none.x", {}, { fallback: () => { throw new Error("worse"); } }), { message: "worse" });
  });
});

describe("options of a call", () => {
  const wrong: readonly [string, object][] = [
    ["signal", { signal: "abort" }], ["signal", { signal: null }], ["timeoutMs", { timeoutMs: -1 }], ["timeoutMs", { timeoutMs: NaN }], ["timeoutMs", { timeoutMs: "5" }],
    ["attemptTimeoutMs", { attemptTimeoutMs: -1 }], ["strategy", { strategy: "nearest" }], ["strategy", { strategy: "toString" }],
    ["retry.attempts", { retry: { attempts: -1 } }], ["retry.attempts", { retry: { attempts: 1.5 } }], ["retry.factor", { retry: { factor: 0 } }],
    ["retry.jitter", { retry: { jitter: 2 } }], ["retry.delayMs", { retry: { delayMs: -1 } }], ["meta", { meta: [1] }], ["meta", { meta: null }], ["nodeId", { nodeId: 1 }], ["fallback", { fallback: 1 }],
    ['did you mean "timeoutMs"', { timeout: 5 }], ["call option retry", { retry: 3 }], ['did you mean "attempts"', { retry: { attempt: 3 } }],
  ];
  for (const [option, options] of wrong) {
    test(`that are wrong are refused by name: ${option} in ${JSON.stringify(options)}`, async () => {
      const { call } = callFixture({ actions: new TestActions().add("v1.a.x", () => 1) });
      await assert.rejects(call("v1.a.x", {}, options), (error) => error instanceof MeshConfigurationError && error.message.includes(option));
    });
  }
});

test("concurrent calls share nothing", async () => {
  const actions = new TestActions().add("v1.a.who", async (ctx: TestContext) => { await sleep(Math.random() * 10); return ctx.meta.n; });
  const { call } = callFixture({ actions, directory: new TestDirectory(), middleware: [(next) => async (name, args, options) => { await sleep(Math.random() * 10); return next(name, args, options); }] });
  const numbers = Array.from({ length: 100 }, (_, n) => n);
  assert.deepEqual(await Promise.all(numbers.map((n) => call("v1.a.who", {}, { meta: { n } }))), numbers);
});

test("an error that says it cannot be retried is not", async () => {
  const { call, transport } = callFixture({ directory: new TestDirectory().serve("v1.s.x", peer("p1")), answer: () => { throw new MeshActionNotFoundError("v1.s.x"); } });
  await assert.rejects(call("v1.s.x", {}, { retry: { attempts: 5, delayMs: 1 } }), MeshActionNotFoundError);
  assert.equal(transport.asked.length, 1);
});
