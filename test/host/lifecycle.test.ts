import assert from "node:assert/strict";
import { createServer } from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { MeshError, chimpbaseAuth, chimpbaseMesh, cron, onStart, onStop, route, service, worker, type Context, type Host, type HostEnv, type LifecycleRegistration, type Registration } from "@chimpbase/mesh";
import { createDatabase, createEmptyDatabase } from "../support/database.js";
import { hostOn, makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

function recorder(order: string[], name: string, fail?: keyof LifecycleRegistration): LifecycleRegistration {
  const record = (stage: keyof LifecycleRegistration) => (env: HostEnv) => {
    order.push(`${name} ${stage} ${env.url === null ? "unbound" : "bound"}`);
    if (stage === fail) throw new Error(`${name} ${stage} failed`);
  };
  return { kind: "lifecycle", name, ready: record("ready"), listening: record("listening"), drain: record("drain"), close: record("close") };
}

function hooks(order: string[], name: string): Registration[] {
  return [onStart(() => void order.push(`${name} start`)), onStop(() => void order.push(`${name} stop`))];
}

test("start and stop run the stages of plugins and hooks in their order, and backwards", async (t) => {
  const order: string[] = [];
  const { host } = await makeHost(t);
  host.register(recorder(order, "a"), ...hooks(order, "x"), recorder(order, "b"), ...hooks(order, "y"));
  await host.start();
  await host.stop();
  assert.deepEqual(order, [
    "a ready unbound", "b ready unbound", "a listening bound", "b listening bound", "x start", "y start",
    "a drain bound", "b drain bound", "y stop", "x stop", "b close bound", "a close bound",
  ]);
});

test("a host starts once: start again, start after stop and register after start are coded errors", async (t) => {
  const { host } = await makeHost(t, { server: false });
  const starting = host.start();
  await assert.rejects(host.start(), { code: "ALREADY_STARTED" });
  await starting;
  assert.throws(() => host.register(onStop(() => undefined)), { code: "ALREADY_STARTED" });
  await host.stop();
  await assert.rejects(host.start(), { code: "ALREADY_STOPPED" });
});

test("stop is one promise, and needs no start", async (t) => {
  const { host } = await makeHost(t, { server: false });
  const stopping = host.stop();
  assert.equal(host.stop(), stopping);
  await stopping;
  await assert.rejects(host.start(), { code: "ALREADY_STOPPED" });
});

for (const stage of ["ready", "listening"] as const) {
  test(`a plugin that fails in ${stage} fails the start with its error, and all that was begun is ended`, async () => {
    const database = await createDatabase();
    const order: string[] = [];
    const { host } = hostOn(database.url);
    host.register(recorder(order, "a"), recorder(order, "b", stage), ...hooks(order, "x"));
    await assert.rejects(host.start(), { message: `b ${stage} failed` });
    assert.deepEqual(order.filter((entry) => /close|stop/.test(entry)).map((entry) => entry.split(" ")[0]), ["b", "a"]);
    assert.equal(host.url, null);
    await host.stop();
    // Fails where connections were left open.
    await database.drop();
  });
}

test("a failing start hook ends everything, runs the stop hooks, and leaves no timer, socket or connection", async () => {
  const database = await createDatabase();
  const before = process.getActiveResourcesInfo().sort();
  const order: string[] = [];
  const { host } = hostOn(database.url);
  host.register(recorder(order, "a"), cron("tick", "* * * * *", () => undefined), onStart(() => { throw new Error("no warm-up"); }), ...hooks(order, "x"));
  await assert.rejects(host.start(), { message: "no warm-up" });
  assert.deepEqual(order.slice(-2).map((entry) => entry.replace(/ (un)?bound/, "")), ["x stop", "a close"]);
  assert.deepEqual(process.getActiveResourcesInfo().sort(), before);
  await database.drop();
});

test("a port in use is found out before anything is announced, and closes the pool again", async (t) => {
  const blocker = createServer().listen(0, "127.0.0.1");
  await once(blocker, "listening");
  t.after(() => blocker.close());
  const database = await createDatabase();
  const order: string[] = [];
  const { host } = hostOn(database.url, { server: { port: (blocker.address() as { port: number }).port } });
  host.register(recorder(order, "a"));
  await assert.rejects(host.start(), /in use/);
  assert.ok(!order.some((entry) => entry.includes("listening")));
  await database.drop();
});

test("stop while starting gives the start up at its next step, and leaves nothing behind", async () => {
  const database = await createDatabase();
  const { host } = hostOn(database.url);
  let stopping: Promise<void> | undefined;
  host.register({ kind: "lifecycle", name: "impatient", ready: () => void (stopping = host.stop()) }, onStart(() => assert.fail("started")));
  await assert.rejects(host.start(), { code: "ALREADY_STOPPED" });
  await stopping;
  await database.drop();
});

test("every step of a stop runs, whatever becomes of the others; then stop rejects with all that failed", async () => {
  const database = await createDatabase();
  const order: string[] = [];
  const { host, lines } = hostOn(database.url);
  host.register(recorder(order, "a", "drain"), recorder(order, "b", "close"), onStop(() => { throw new Error("stuck"); }), ...hooks(order, "x"));
  await host.start();
  await assert.rejects(host.stop(), (error) => {
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, "STOP_FAILED");
    assert.match(error.message, /a drain failed; stuck; b close failed/);
    return true;
  });
  assert.ok(order.includes("x stop") && order.includes("a close bound"));
  assert.equal(lines.filter(({ level }) => level === 50).length, 3);
  await database.drop();
});

test("a stopped host leaves its process free to exit", async () => {
  const database = await createDatabase();
  const before = process.getActiveResourcesInfo().sort();
  const { host } = hostOn(database.url);
  host.register(route("hello", () => new Response("hello")), cron("tick", "* * * * *", () => undefined));
  await host.start();
  await host.stop();
  assert.deepEqual(process.getActiveResourcesInfo().sort(), before);
  await database.drop();
});

interface Meshed {
  readonly host: Host;
  /** Requests for RPC that came by POST. */
  readonly posts: () => number;
  readonly heard: string[];
}

async function meshedOn(databaseUrl: string, name: string): Promise<Meshed> {
  const { host } = hostOn(databaseUrl, { secrets: { values: { MESH_TOKEN: "t0ken" } } });
  const heard: string[] = [];
  let posts = 0;
  const hear = (ctx: Context): void => void heard.push(ctx.event!.name);
  const events = { "sent.*": { handler: hear }, [`work.${name}`]: { balanced: true, handler: hear } };
  host.register(
    { kind: "raw-route", name: "posts", handler: ({ method }) => { if (method === "POST") posts++; return false; } },
    chimpbaseMesh({ services: [service({ name, version: 1, actions: { echo: async (_ctx, text: string) => text }, events })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }),
    cron("tick", "* * * * *", () => undefined),
  );
  await host.start();
  return { host, posts: () => posts, heard };
}

/** By POST, as the first call and large ones go, and on a wire. */
async function callBothWays(from: Host, to: Meshed, action: string): Promise<void> {
  await from.mesh.waitFor(action);
  await until(async () => {
    const before = to.posts();
    await from.mesh.call(action, "small");
    return to.posts() === before;
  });
  const before = to.posts();
  assert.equal(await from.mesh.call(action, "x".repeat(300_000)), "x".repeat(300_000));
  assert.equal(to.posts(), before + 1);
}

test("two hosts that have called each other, on wires and by POST, and heard each other's events, leave no timer, socket or connection", async () => {
  const database = await createDatabase();
  const before = process.getActiveResourcesInfo().sort();
  const [a, b] = [await meshedOn(database.url, "a"), await meshedOn(database.url, "b")];
  await callBothWays(a.host, b, "v1.b.echo");
  await callBothWays(b.host, a, "v1.a.echo");
  for (const { host } of [a, b]) for (const event of ["sent.x", "work.a", "work.b"]) await host.mesh.emit(event, null);
  for (const [{ heard }, work] of [[a, "work.a"], [b, "work.b"]] as const) {
    await until(() => heard.length === 4);
    assert.deepEqual(heard.toSorted(), ["sent.x", "sent.x", work, work]);
  }
  await a.host.stop();
  await b.host.stop();
  assert.deepEqual(process.getActiveResourcesInfo().sort(), before);
  await database.drop();
});

test("a database that cannot be reached fails the start with a coded error", async () => {
  const { host } = hostOn("postgres://postgres@127.0.0.1:1/none");
  await assert.rejects(host.start(), (error) => error instanceof MeshError);
});

test("forty whole hosts start at once on an empty database", { timeout: 60_000 }, async () => {
  const database = await createEmptyDatabase();
  const hosts = Array.from({ length: 40 }, () => {
    const { host } = hostOn(database.url, { secrets: { values: { MESH_TOKEN: "t" } }, database: { poolSize: 1 } });
    const users = service({ name: "users", version: 1, actions: { where: async (ctx) => ctx.mesh.nodeId() }, events: { "a.*": { balanced: true, handler: async () => undefined }, "b.c": async () => undefined } });
    return host.register(
      chimpbaseMesh({ services: [users], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }),
      chimpbaseAuth({ bootstrapKeySecret: "MESH_TOKEN" }), cron("tick", "* * * * *", () => undefined), worker("jobs", () => undefined),
    );
  });
  const results = await Promise.allSettled(hosts.map((host) => host.start()));
  const failed = results.filter(({ status }) => status === "rejected");
  const [first] = hosts as [(typeof hosts)[number]];
  if (failed.length === 0) await until(() => first.mesh.peers().length === 39);
  await Promise.all(hosts.map((host) => host.stop()));
  await database.drop();
  assert.deepEqual(failed, []);
});

test("hosts of two schemas in one database do not meet", async (t) => {
  const { host: one, databaseUrl } = await makeHost(t, { server: false, database: { schema: "one" } });
  const { host: two } = hostOn(databaseUrl, { server: false, database: { schema: "two" } });
  const heard: string[] = [];
  one.register({ kind: "broadcast", pattern: "ping", target: { kind: "subscription", name: "ping", handler: () => heard.push("one") } });
  two.register(
    { kind: "broadcast", pattern: "ping", target: { kind: "subscription", name: "ping", handler: () => heard.push("two") } },
    onStart((ctx) => ctx.pubsub.publish("ping", null)),
  );
  await one.start();
  await two.start();
  await until(() => heard.length > 0);
  await two.stop();
  await one.stop();
  assert.deepEqual(heard, ["two"]);
});
