import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import {
  MeshActionNotFoundError, MeshCancelledError, MeshConfigurationError, MeshTimeoutError, action, contextExtension, onStart, subscription, worker,
  type Context, type HostEnv, type Registration, type ScopedContext,
} from "@chimpbase/mesh";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { Deadline, now } from "#mesh/pipeline/deadline.js";
import { makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

/** A running host, and a context of it. */
async function contextOf(t: TestContext, ...registrations: Registration[]): Promise<{ ctx: ScopedContext; env: HostEnv; lines: readonly { msg: string }[] }> {
  const { host, lines } = await makeHost(t, { server: false, secrets: { values: { TOKEN: "t" } } });
  let env: HostEnv | undefined;
  host.register(...registrations, { kind: "lifecycle", name: "capture", ready: (given) => void (env = given) });
  await host.start();
  const given = env as HostEnv;
  return { ctx: given.dispatcher.context(given.dispatcher.rootScope()), env: given, lines };
}

test("ctx.db takes ?1 and $1 placeholders, and leaves literals alone", async (t) => {
  const { ctx } = await contextOf(t);
  assert.deepEqual(await ctx.db.query("SELECT ?2::text AS b, '?1' AS literal, ?1::int AS a", [1, "x"]), [{ b: "x", literal: "?1", a: 1 }]);
  assert.deepEqual(await ctx.db.query("SELECT $1::int AS a", [2]), [{ a: 2 }]);
});

test("what a transaction does through its context commits together: rows, jobs and events", async (t) => {
  const seen: unknown[] = [];
  const { ctx } = await contextOf(t, worker("mail", (_ctx, payload) => void seen.push(["job", payload])), subscription("made", (_ctx, payload) => void seen.push(["event", payload])));
  await ctx.db.query("CREATE TABLE notes (text TEXT)");
  const result = await ctx.transaction(async (tx) => {
    await tx.db.query("INSERT INTO notes VALUES (?1)", ["a"]);
    await tx.queue.enqueue("mail", 1);
    await tx.pubsub.publish("made", 2);
    assert.deepEqual(seen, []);
    assert.deepEqual(await ctx.db.query("SELECT * FROM notes"), []);
    return "done";
  });
  assert.equal(result, "done");
  await until(() => seen.length === 2);
  assert.deepEqual(seen.sort(), [["event", 2], ["job", 1]]);
  assert.deepEqual(await ctx.db.query("SELECT * FROM notes"), [{ text: "a" }]);
});

test("what a failing transaction has done vanishes together", async (t) => {
  const seen: unknown[] = [];
  const { ctx } = await contextOf(t, worker("mail", (_ctx, payload) => void seen.push(payload)), subscription("made", (_ctx, payload) => void seen.push(payload)));
  await ctx.db.query("CREATE TABLE notes (text TEXT)");
  const failing = ctx.transaction(async (tx) => {
    await tx.db.query("INSERT INTO notes VALUES ('a')");
    await tx.queue.enqueue("mail", "lost");
    await tx.pubsub.publish("made", "lost");
    throw new Error("changed my mind");
  });
  await assert.rejects(failing, { message: "changed my mind" });
  assert.deepEqual(await ctx.db.query("SELECT * FROM notes"), []);
  await ctx.queue.enqueue("mail", "kept");
  await ctx.pubsub.publish("made", "kept");
  await until(() => seen.length === 2);
  assert.deepEqual(seen, ["kept", "kept"]);
});

test("a nested transaction is a savepoint, and host actions called through a transaction's context join it", async (t) => {
  const { ctx } = await contextOf(t, action("note", (inner: Context, text: string) => inner.db.query("INSERT INTO notes VALUES (?1)", [text])));
  await ctx.db.query("CREATE TABLE notes (text TEXT)");
  await ctx.transaction(async (tx) => {
    await tx.action("note", "outer");
    await tx.transaction(async (inner) => { await inner.action("note", "inner"); throw new Error("inner only"); }).catch(() => undefined);
    assert.deepEqual(await ctx.db.query("SELECT * FROM notes"), []);
  });
  assert.deepEqual(await ctx.db.query("SELECT * FROM notes"), [{ text: "outer" }]);
});

test("host actions know their caller, level and request; an unknown one is not found", async (t) => {
  const { ctx, env } = await contextOf(t,
    action("outer", (inner) => inner.action("inner", { n: 1 })),
    action("inner", (inner, args) => ({ args, level: inner.level, caller: inner.caller, requestId: inner.requestId, event: inner.event })),
  );
  assert.deepEqual(await ctx.action("outer"), { args: { n: 1 }, level: 2, caller: { nodeId: env.nodeId, action: "outer" }, requestId: ctx.requestId, event: undefined });
  await assert.rejects(ctx.action("missing"), MeshActionNotFoundError);
  const outer = await env.action("inner", null, env.dispatcher.rootScope({ level: 7 })) as { level: number };
  assert.equal(outer.level, 7, "env.action runs in exactly the scope given");
});

test("actions that call each other in a circle end at depth 100", async (t) => {
  let deepest = 0;
  const { ctx } = await contextOf(t, action("ping", (inner) => { deepest = inner.level; return inner.action("pong"); }), action("pong", (inner) => inner.action("ping")));
  await assert.rejects(ctx.action("ping"), { code: "CALL_DEPTH", message: /ping → pong/ });
  assert.ok(deepest >= 99);
});

test("a handler whose run is over sends no more statements", async (t) => {
  const { env } = await contextOf(t);
  const { dispatcher } = env;
  const late = dispatcher.context(dispatcher.rootScope({ deadline: new Deadline(50, now() - 1) }));
  await assert.rejects(late.db.query("SELECT 1"), MeshTimeoutError);
  await assert.rejects(late.transaction(() => assert.fail("ran")), MeshTimeoutError);
  const cancellation = new Cancellation();
  const gone = dispatcher.context(dispatcher.rootScope({ cancellation }));
  cancellation.abort("the caller is gone");
  await assert.rejects(gone.db.query("SELECT 1"), MeshCancelledError);
});

test("a full pool is a clear error before the deadline", async (t) => {
  const { ctx, env } = await contextOf(t);
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  const holders = Array.from({ length: 4 }, () => ctx.transaction(() => held));
  await until(() => env.storage.stats().idle === 0 && env.storage.stats().total === 4);
  const hurried = env.dispatcher.context(env.dispatcher.rootScope({ deadline: new Deadline(1_000) }));
  await assert.rejects(hurried.db.query("SELECT 1"), { code: "OVERLOADED" });
  assert.ok(hurried.deadline! > 0);
  release();
  await Promise.all(holders);
});

test("context extensions are made once for each context, when first used", async (t) => {
  let made = 0;
  const { ctx, env } = await contextOf(t, contextExtension("clock", (of) => ({ made: ++made, requestId: of.requestId })));
  const withClock = (of: ScopedContext): { made: number; requestId: string } => (of as unknown as { clock: { made: number; requestId: string } }).clock;
  assert.equal(made, 0);
  assert.equal(withClock(ctx), withClock(ctx));
  assert.equal(withClock(ctx).requestId, ctx.requestId);
  withClock(env.dispatcher.context(env.dispatcher.rootScope()));
  assert.equal(made, 2);
});

test("ctx.mesh and host.mesh without the mesh say what to register", async (t) => {
  const { ctx } = await contextOf(t);
  assert.throws(() => ctx.mesh, { code: "MESH_NOT_REGISTERED", message: /chimpbaseMesh/ });
  const { host } = await makeHost(t, { server: false });
  assert.throws(() => host.mesh, { code: "MESH_NOT_REGISTERED" });
});

test("names of queues and events, and delays, are checked before anything is sent", async (t) => {
  const { ctx } = await contextOf(t);
  for (const name of ["", "a b", "a*", "x".repeat(129), 1 as never]) {
    await assert.rejects(ctx.queue.enqueue(name, null), MeshConfigurationError);
    await assert.rejects(ctx.pubsub.publish(name, null), MeshConfigurationError);
  }
  for (const delayMs of [-1, NaN, Infinity, "1" as never]) await assert.rejects(ctx.queue.enqueue("q", null, { delayMs }), MeshConfigurationError);
});

test("a statement does not outlive its deadline by much, nor the transaction around it", async (t) => {
  const { ctx, env } = await contextOf(t);
  await ctx.db.query("CREATE TABLE notes (text TEXT)");
  const hurried = env.dispatcher.context(env.dispatcher.rootScope({ deadline: new Deadline(500) }));
  const failing = hurried.transaction(async (tx) => {
    await tx.db.query("INSERT INTO notes VALUES ('dropped')");
    await tx.db.query("SELECT pg_sleep(60)");
  });
  await assert.rejects(failing, { code: "DATABASE_UNAVAILABLE", message: /not answered within/ });
  const running = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)'";
  await until(async () => (await ctx.db.query(running)).length === 0);
  assert.deepEqual(await ctx.db.query("SELECT * FROM notes"), []);
});

test("secrets, deadline, signal and log belong to the run", async (t) => {
  const { env, lines } = await contextOf(t);
  const ctx = env.dispatcher.context(env.dispatcher.rootScope({ deadline: new Deadline(1_000), meta: { tenant: "a" } }));
  assert.deepEqual([ctx.secret("TOKEN"), ctx.secret("NONE"), ctx.meta, ctx.signal.aborted, ctx.event], ["t", null, { tenant: "a" }, false, undefined]);
  assert.ok((ctx.deadline ?? 0) > 0 && (ctx.deadline ?? 0) <= 1_000);
  ctx.log.info("hello", { n: 1 });
  const line = lines.find(({ msg }) => msg === "hello") as unknown as { requestId: string; n: number };
  assert.deepEqual([line.requestId, line.n], [ctx.requestId, 1]);
});

test("broadcast handlers get the envelope of the event; one that fails touches no other", async (t) => {
  const seen: Context["event"][] = [];
  const { ctx, env, lines } = await contextOf(t,
    subscription("user.*", () => { throw new Error("handler failed"); }),
    subscription("user.deleted", (inner, payload) => { seen.push(inner.event); assert.deepEqual(payload, { id: "1" }); }),
  );
  await ctx.pubsub.publish("user.deleted", { id: "1" });
  await until(() => seen.length === 1);
  const { name, attempt, balanced, nodeId } = seen[0]!;
  assert.deepEqual({ name, attempt, balanced, nodeId }, { name: "user.deleted", attempt: 1, balanced: false, nodeId: env.nodeId });
  await until(() => lines.some((line) => JSON.stringify(line).includes("handler failed")));
});

test("events from before the start hooks have run are not lost, and come when the plugins are up", async (t) => {
  const { host } = await makeHost(t, { server: false });
  const order: string[] = [];
  host.register(
    {
      kind: "lifecycle", name: "early",
      async ready(env) {
        await env.attach([{ kind: "broadcast", pattern: "early", target: { kind: "subscription", name: "early", handler: () => void order.push("event") } }]);
        await env.dispatcher.context(env.dispatcher.rootScope()).pubsub.publish("early", null);
      },
      async listening() {
        await new Promise((resolve) => setTimeout(resolve, 100));
        order.push("listening");
      },
    },
    onStart(() => until(() => order.length === 2)),
  );
  await host.start();
  assert.deepEqual(order, ["listening", "event"]);
});

test("a live attachment can be taken off, and waits for what is under way", async (t) => {
  const { ctx, env } = await contextOf(t);
  const seen: unknown[] = [];
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  const handler = async (_ctx: Context, payload: unknown): Promise<void> => { seen.push(payload); await held; };
  const detach = await env.attach([{ kind: "broadcast", pattern: "live", target: { kind: "subscription", name: "live", handler } }]);
  await ctx.pubsub.publish("live", 1);
  await until(() => seen.length === 1);
  let detached = false;
  const detaching = detach().then(() => (detached = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(detached, false);
  release();
  await detaching;
  await ctx.pubsub.publish("live", 2);
  await ctx.db.query("SELECT 1");
  assert.deepEqual(seen, [1]);
});
