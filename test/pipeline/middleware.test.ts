import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { CallMiddleware, CallOptions } from "@chimpbase/mesh";
import { composeMiddleware } from "#mesh/pipeline/middleware.js";

interface Origin { readonly id: string }

function composed(...middleware: CallMiddleware[]) {
  const calls: { origin: string; name: string; args: unknown; options: CallOptions }[] = [];
  const run = composeMiddleware<Origin>(middleware, async (origin, name, args, options) => {
    calls.push({ origin: origin.id, name, args, options });
    return `${origin.id}:${name}`;
  }, () => ({ id: "orphan" }));
  return { run: (id: string, name = "a", args: unknown = {}, options: CallOptions = {}) => run({ id }, name, args, options), calls };
}

test("the first listed is outermost", async () => {
  const order: string[] = [];
  const tracer = (label: string): CallMiddleware => (next) => async (name, args, options) => {
    order.push(`${label} in`);
    const result = await next(name, args, options);
    order.push(`${label} out`);
    return result;
  };
  await composed(tracer("1"), tracer("2")).run("o");
  assert.deepEqual(order, ["1 in", "2 in", "2 out", "1 out"]);
});

test("is made once, and what it keeps lasts from call to call", async () => {
  let made = 0;
  let count = 0;
  const { run } = composed((next) => { made++; return (name, args, options) => { count++; return next(name, args, options); }; });
  await run("o");
  await run("o");
  assert.deepEqual([made, count], [1, 2]);
});

test("may change name, args and options, answer itself, and turn a failure into a result", async () => {
  const { run, calls } = composed(
    (next) => async (name, args, options) => name === "cached" ? "from cache" : next(name, args, options).catch(() => "rescued"),
    (next) => async (name, args, options) => { if (name === "bad") throw new Error("bad"); return next(`${name}2`, [args], { ...options, timeoutMs: 7 }); },
  );
  assert.equal(await run("o", "a", 1), "o:a2");
  assert.deepEqual(calls, [{ origin: "o", name: "a2", args: [1], options: { timeoutMs: 7 } }]);
  assert.equal(await run("o", "cached"), "from cache");
  assert.equal(await run("o", "bad"), "rescued");
});

test("sees the options that the caller gave, in a copy of its own", async () => {
  const given: CallOptions = Object.freeze({ timeoutMs: 5 });
  let seen: CallOptions | undefined;
  const { run } = composed((next) => (name, args, options) => { seen = options; (options as { nodeId?: string }).nodeId = "n"; return next(name, args, options); });
  await run("o", "a", {}, given);
  assert.deepEqual(seen, { timeoutMs: 5, nodeId: "n" });
  assert.deepEqual(given, { timeoutMs: 5 });
});

describe("the origin of a call reaches the end", () => {
  const passes: Record<string, CallMiddleware> = {
    "with the options as they were": (next) => async (name, args, options) => { await sleep(Math.random() * 5); return next(name, args, options); },
    "with options derived": (next) => async (name, args, options) => { await sleep(Math.random() * 5); return next(name, args, { ...options, timeoutMs: 1 }); },
    "with options of its own": (next) => async (name, args) => { await sleep(Math.random() * 5); return next(name, args, {}); },
    "without options": (next) => async (name, args) => { await sleep(Math.random() * 5); return (next as (name: string, args: unknown) => Promise<unknown>)(name, args); },
  };
  for (const [how, middleware] of Object.entries(passes)) {
    test(how, async () => {
      const { run } = composed(middleware);
      const ids = Array.from({ length: 50 }, (_, n) => `o${n}`);
      assert.deepEqual(await Promise.all(ids.map((id) => run(id))), ids.map((id) => `${id}:a`));
    });
  }

  test("from a queue that another call works off", async () => {
    const waiting: (() => void)[] = [];
    const { run } = composed((next) => (name, args, options) => new Promise((resolve, reject) => {
      waiting.push(() => next(name, args, options).then(resolve, reject));
      if (waiting.length === 2) for (const go of waiting.reverse()) go();
    }));
    assert.deepEqual(await Promise.all([run("o1"), run("o2")]), ["o1:a", "o2:a"]);
  });

  test("several times, where it asks several times", async () => {
    const { run, calls } = composed((next) => async (name, args, options) => Promise.all([next(name, args, options), next("b", args, {})]));
    assert.deepEqual(await run("o"), ["o:a", "o:b"]);
    assert.equal(calls.length, 2);
  });

  test("outside any call there is one to stand in", async () => {
    let outside: Promise<unknown> | undefined;
    composed((next) => { outside = new Promise((resolve) => setImmediate(resolve)).then(() => next("a", {}, {})); return next; });
    assert.equal(await outside, "orphan:a");
  });
});

test("a middleware that throws before its first await rejects the call", async () => {
  const { run } = composed(() => () => { throw new Error("early"); });
  await assert.rejects(run("o"), { message: "early" });
});

test("what is no middleware is refused by its place", () => {
  assert.throws(() => composed((next) => next, "x" as unknown as CallMiddleware), /middleware\[1\]/);
  assert.throws(() => composed((() => undefined) as unknown as CallMiddleware), { code: "CONFIGURATION" });
});
