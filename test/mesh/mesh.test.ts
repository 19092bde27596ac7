import assert from "node:assert/strict";
import { test } from "node:test";
import { chimpbaseMesh, MeshConfigurationError, MeshNoAvailableNodeError, MeshTimeoutError, ServiceDefinitionError, service } from "@chimpbase/mesh";
import type { Context, Host } from "@chimpbase/mesh";
import { until } from "../support/wait.js";
import { MeshFixture, schema } from "./mesh-fixture.js";

const hello = service({ name: "hello", version: 1, actions: { who: async (ctx: Context) => ctx.mesh.nodeId() } });
const named = (name: string, hooks: { started?: () => unknown; stopped?: () => unknown } = {}) => service({
  name, version: 1, actions: { who: async (ctx: Context) => ctx.mesh.nodeId() },
  started: async () => void (await hooks.started?.()), stopped: async () => void (await hooks.stopped?.()),
});
const rows = (mesh: MeshFixture) => mesh.query<{ node_id: string; advertised_url: string | null; metadata_json: string; services_json: string }>("SELECT * FROM _chimpbase_mesh_nodes");
const who = (host: Host) => host.mesh.call("v1.hello.who");

test("wrong options and services fail at registration", () => {
  assert.throws(() => chimpbaseMesh({ services: [] }), MeshConfigurationError);
  assert.throws(() => chimpbaseMesh({ services: [class Plain {}], transport: "local-only" }), ServiceDefinitionError);
  assert.throws(() => chimpbaseMesh({ services: [hello, hello], transport: "local-only" }), ServiceDefinitionError);
});

test("the sweep is a cron of every minute", () => {
  const { registrations } = chimpbaseMesh({ services: [hello], transport: "local-only" });
  const cron = registrations.find((registration) => registration.kind === "cron");
  assert.deepEqual([cron?.name, cron?.schedule], ["__chimpbase.mesh.gc", "* * * * *"]);
});

test("a missing secret fails the start by name, and leaves nothing behind", async () => {
  await using mesh = await MeshFixture.open();
  const host = mesh.host([hello], { meshToken: ["MESH_TOKEN", "OLD_TOKEN"] });
  await assert.rejects(host.start(), (error: Error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, /"OLD_TOKEN"/);
    assert.doesNotMatch(error.message, /t0ken/);
    return true;
  });
  assert.deepEqual(await rows(mesh), []);
});

test("http without a server is refused; local-only needs none", async () => {
  await using mesh = await MeshFixture.open();
  await assert.rejects(mesh.host([hello], {}, { server: false }).start(), /needs the HTTP server/);
  assert.deepEqual(await rows(mesh), []);
  const local = await mesh.started([hello], { transport: "local-only" }, { server: false });
  assert.equal(await who(local), local.nodeId);
  assert.equal((await rows(mesh))[0]?.advertised_url, null);
});

test("a local-only node is seen by peers but never called, and calls nobody", async () => {
  await using mesh = await MeshFixture.open();
  const remote = await mesh.started([named("far")]);
  const local = await mesh.started([hello], { transport: "local-only" });
  await until(() => remote.mesh.peers().length === 1 && local.mesh.peers().length === 1);
  await assert.rejects(who(remote), MeshNoAvailableNodeError);
  await assert.rejects(local.mesh.call("v1.far.who"), MeshNoAvailableNodeError);
});

test("a loopback address is warned of", async () => {
  await using mesh = await MeshFixture.open();
  await mesh.started([hello]);
  assert.ok(mesh.logs.some((line) => line.includes("loopback") && line.includes('"level":40')));
});

test("before start and after stop the client says so by code", async () => {
  await using mesh = await MeshFixture.open();
  const host = mesh.host([hello]);
  const notRunning = { code: "MESH_NOT_RUNNING" };
  assert.throws(() => host.mesh.nodeId(), notRunning);
  await assert.rejects(who(host), notRunning);
  await assert.rejects(host.mesh.emit("a", 1), notRunning);
  await host.start();
  assert.equal(host.mesh.nodeId(), host.nodeId);
  await host.stop();
  assert.throws(() => host.mesh.peers(), notRunning);
  await assert.rejects(host.mesh.register(named("late")), notRunning);
  await assert.rejects(host.mesh.waitFor("v1.hello"), notRunning);
});

test("services start before the node is announced, and stop after it has left, in reverse order", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  const note = (what: string) => async () => void seen.push(`${what} ${(await rows(mesh)).length}`);
  const host = await mesh.started([named("a", { started: note("a started"), stopped: note("a stopped") }), named("b", { started: note("b started"), stopped: note("b stopped") })]);
  seen.push(`up ${(await rows(mesh)).length}`);
  await host.stop();
  assert.deepEqual(seen, ["a started 0", "b started 0", "up 1", "b stopped 0", "a stopped 0"]);
});

test("a started hook that throws fails the start, and stops what had started", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  const good = named("good", { started: () => seen.push("good up"), stopped: () => seen.push("good down") });
  const bad = named("bad", { started: () => Promise.reject(new Error("no database for me")), stopped: () => seen.push("bad down") });
  await assert.rejects(mesh.host([good, bad]).start(), /no database for me/);
  assert.deepEqual(seen, ["good up", "good down"]);
  assert.deepEqual(await rows(mesh), []);
});

test("a stopped hook that throws is logged and holds up nobody", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([named("bad", { stopped: () => Promise.reject(new Error("stuck")) })]);
  await host.stop();
  assert.ok(mesh.logs.some((line) => line.includes("stuck")));
});

test("hooks and handlers may use the mesh", async () => {
  await using mesh = await MeshFixture.open();
  const seen: unknown[] = [];
  const eager = service({
    name: "eager", version: 1,
    actions: { ask: async (_ctx: Context, _args: unknown, self) => self.call("v1.hello.who") },
    started: async (ctx, self) => void seen.push(await self.call("v1.hello.who"), self.nodeId, await ctx.mesh.waitFor("v1.eager.ask")),
  });
  const host = await mesh.started([hello, eager]);
  assert.deepEqual(seen, [host.nodeId, host.nodeId, undefined]);
  assert.equal(await host.mesh.call("v1.eager.ask"), host.nodeId);
});

test("a new node is callable, and a stopped one gone, within a second", async () => {
  await using mesh = await MeshFixture.open();
  const first = await mesh.started([named("first")]);
  const second = await mesh.started([hello]);
  await first.mesh.waitFor("v1.hello.who", { timeoutMs: 1_000 });
  assert.equal(await who(first), second.nodeId);
  assert.deepEqual(first.mesh.peers().map(({ nodeId }) => nodeId), [second.nodeId]);
  await second.stop();
  await until(() => first.mesh.peers().length === 0, { timeoutMs: 1_000 });
  await assert.rejects(who(first), MeshNoAvailableNodeError);
});

test("one plugin belongs to one host: another that registers it fails, and takes nothing from the first", async () => {
  await using mesh = await MeshFixture.open();
  const plugin = chimpbaseMesh({ services: [hello], transport: "local-only" });
  const [first, second] = [mesh.bare(plugin), mesh.bare(plugin)];
  await first.start();
  await assert.rejects(second.start(), /belongs to one host/);
  assert.equal(await who(first), first.nodeId);
  assert.equal((await rows(mesh)).length, 1);
});

test("meshes of two schemas in one database do not meet", async () => {
  await using mesh = await MeshFixture.open();
  const here = await mesh.started([hello]);
  const there = await mesh.started([named("other")], {}, { database: { url: mesh.url, schema: "other" } });
  await assert.rejects(here.mesh.waitFor("v1.other", { timeoutMs: 300 }), MeshTimeoutError);
  assert.deepEqual([here.mesh.peers(), there.mesh.peers()], [[], []]);
});

test("a service registered while running is added whole, or not at all", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  const watcher = await mesh.started([named("watcher")]);
  const host = await mesh.started([hello]);
  await host.mesh.register(named("reports", { started: () => seen.push("reports up"), stopped: () => seen.push("reports down") }));
  await watcher.mesh.waitFor("v1.reports.who", { timeoutMs: 1_000 });
  assert.equal(await watcher.mesh.call("v1.reports.who"), host.nodeId);
  const broken = named("broken", { started: () => Promise.reject(new Error("no")) });
  await assert.rejects(host.mesh.register(named("fine", { started: () => seen.push("fine up"), stopped: () => seen.push("fine down") }), broken), /no/);
  await assert.rejects(host.mesh.register(named("reports")), ServiceDefinitionError);
  await assert.rejects(host.mesh.call("v1.fine.who"), MeshNoAvailableNodeError);
  await assert.rejects(host.mesh.unregister("v1.report"), /did you mean "v1.reports"/);
  await host.mesh.unregister("v1.reports");
  assert.deepEqual(seen, ["reports up", "fine up", "fine down", "reports down"]);
  await until(() => !watcher.mesh.peers()[0]!.services.some(({ name }) => name === "reports"), { timeoutMs: 1_000 });
  await assert.rejects(host.mesh.call("v1.reports.who"), MeshNoAvailableNodeError);
  await host.mesh.register(named("reports"));
  assert.equal(await host.mesh.call("v1.reports.who"), host.nodeId);
});

test("what an action declares for its calls holds on every node", async () => {
  await using mesh = await MeshFixture.open();
  let tries = 0;
  const slow = service({
    name: "slow", version: 1,
    actions: {
      deadline: { timeoutMs: 60_000, handler: (ctx: Context) => ctx.deadline },
      flaky: { retry: { attempts: 1, delayMs: 0 }, handler: () => { if (tries++ === 0) throw new Error("first"); return tries; } },
    },
  });
  await mesh.started([slow]);
  const caller = await mesh.started([hello]);
  await caller.mesh.waitFor("v1.slow");
  assert.ok((await caller.mesh.call<number>("v1.slow.deadline")) > 50_000);
  assert.equal(await caller.mesh.call("v1.slow.flaky"), 2);
});

test("taking a service off waits for its calls under way", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  let finish: () => void = () => undefined;
  const slow = service({
    name: "slow", version: 1,
    actions: { wait: () => new Promise<string>((resolve) => (finish = () => resolve("done"))), quick: async () => "quick" },
    stopped: async () => void seen.push("stopped"),
  });
  const host = await mesh.started([hello]);
  await host.mesh.register(slow);
  const call = host.mesh.call("v1.slow.wait").then((result) => void seen.push(String(result)));
  const gone = host.mesh.unregister("v1.slow");
  await until(async () => (await host.mesh.call("v1.slow.quick").catch(() => "refused")) === "refused");
  assert.deepEqual(seen, []);
  finish();
  await Promise.all([call, gone]);
  assert.deepEqual(seen, ["done", "stopped"]);
});

test("a call whose arguments are still being validated is under way too", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  let pass: () => void = () => undefined;
  const params = schema((value) => new Promise((resolve) => (pass = () => resolve(value))));
  const host = await mesh.started([hello, service({
    name: "checked", version: 1,
    actions: { run: { params, handler: async () => "done" }, quick: async () => "quick" },
    stopped: async () => void seen.push("stopped"),
  })]);
  const call = host.mesh.call("v1.checked.run", {}).then((result) => seen.push(String(result)));
  const gone = host.mesh.unregister("v1.checked");
  await until(async () => (await host.mesh.call("v1.checked.quick").catch(() => "refused")) === "refused");
  await new Promise((resolve) => setTimeout(resolve, 100));
  pass();
  await Promise.all([call, gone]);
  assert.deepEqual(seen, ["done", "stopped"]);
});

test("a result that throws when it is looked at fails its call, and is over", async () => {
  await using mesh = await MeshFixture.open();
  const odd = service({ name: "odd", version: 1, actions: { one: () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy; } } });
  const host = await mesh.started([odd]);
  await assert.rejects(host.mesh.call("v1.odd.one"), TypeError);
  assert.equal(await host.mesh.call("v1.odd.one", undefined, { fallback: () => "instead" }), "instead");
  await host.mesh.unregister("v1.odd");
});

test("events of a service registered while running arrive, and stop arriving when it is taken off", async () => {
  await using mesh = await MeshFixture.open();
  const [seen, all]: [string[], string[]] = [[], []];
  const witness = service({ name: "witness", version: 1, events: { "ping.**": async (_ctx: Context, payload: string) => void all.push(payload) } });
  const listener = service({
    name: "listener", version: 1,
    events: {
      "ping.*": async (ctx: Context, payload: string) => void seen.push(`${ctx.event?.name} ${payload}`),
      "job.made": { balanced: true, handler: async (_ctx: Context, payload: string) => void seen.push(`job ${payload}`) },
    },
  });
  const host = await mesh.started([witness]);
  await host.mesh.register(listener);
  await host.mesh.emit("ping.a", "1");
  await host.mesh.emit("job.made", "2");
  await until(() => seen.length === 2);
  await host.mesh.unregister("v1.listener");
  await host.mesh.emit("ping.a", "3");
  await until(() => all.includes("3"));
  await host.mesh.register(listener);
  await host.mesh.emit("ping.b", "4");
  await until(() => seen.includes("ping.b 4"));
  assert.deepEqual(seen.sort(), ["job 2", "ping.a 1", "ping.b 4"]);
});

test("waitFor names what is missing, and ends when the host stops", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([hello]);
  await host.mesh.waitFor(["v1.hello", "v1.hello.who"]);
  await assert.rejects(host.mesh.waitFor(["v1.hello", "v1.none"], { timeoutMs: 20 }), /v1\.none/);
  const waiting = assert.rejects(host.mesh.waitFor("v1.none"), { code: "CANCELLED" });
  await host.stop();
  await waiting;
});

test("readyz tells of the mesh, and says degraded but ready while the registry cannot be read", async () => {
  await using mesh = await MeshFixture.open();
  const times = { heartbeatMs: 100, offlineAfterMs: 10_000 };
  const host = await mesh.started([hello], times);
  const peer = await mesh.started([named("peer")], times);
  await host.mesh.waitFor("v1.peer.who");
  const ready = async () => {
    const response = await fetch(`${host.url}/readyz`);
    return { status: response.status, mesh: ((await response.json()) as { checks: { mesh: { status: string; peers: number } } }).checks.mesh };
  };
  assert.deepEqual(await ready(), { status: 200, mesh: { status: "ok", peers: 1 } });
  await mesh.query("ALTER TABLE _chimpbase_mesh_nodes RENAME TO hidden");
  await until(async () => (await ready()).mesh.status === "degraded");
  assert.equal((await ready()).status, 200);
  assert.equal(await host.mesh.call("v1.peer.who"), peer.nodeId, "known peers are still called");
  await mesh.query("ALTER TABLE hidden RENAME TO _chimpbase_mesh_nodes");
  await until(async () => (await ready()).mesh.status === "ok");
});

test("when every connection to Postgres is cut, nodes find each other again and none is lost meanwhile", async () => {
  await using mesh = await MeshFixture.open();
  const times = { heartbeatMs: 100, offlineAfterMs: 1_000 };
  const host = await mesh.started([hello], times);
  const peer = await mesh.started([named("peer")], times);
  await host.mesh.waitFor("v1.peer.who");
  await mesh.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
  assert.equal(await host.mesh.call("v1.peer.who"), peer.nodeId);
  const late = await mesh.started([named("late")], times);
  await host.mesh.waitFor("v1.late.who", { timeoutMs: 5_000 });
  assert.equal(host.mesh.peers().length, 2);
  await late.stop();
  await until(() => host.mesh.peers().length === 1, { timeoutMs: 2_000 });
});

test("heartbeats of all nodes come in one event of one node, and of another when that one is gone", async () => {
  await using mesh = await MeshFixture.open();
  const times = { heartbeatMs: 300, offlineAfterMs: 3_000 };
  const hosts = await Promise.all(["a", "b", "c"].map((name) => mesh.started([named(name)], times)));
  /** Over a second, who tells, and of how many nodes. */
  const told = async (): Promise<{ by: string[]; of: number[] }> => {
    const [{ since }] = (await mesh.query("SELECT coalesce(max(id), 0) AS since FROM _chimpbase_mesh_events")) as [{ since: string }];
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const rows = (await mesh.query("SELECT events FROM _chimpbase_mesh_events WHERE id > $1 AND events LIKE '%info.heartbeat%'", [since])) as { events: string }[];
    const payloads = rows.flatMap(({ events }) => JSON.parse(events) as [string, string, { nodeId: string; peers: unknown[] }][]).map((event) => event[2]);
    assert.ok(payloads.length <= 6, `${payloads.length} events in a second`);
    return { by: [...new Set(payloads.map(({ nodeId }) => nodeId))], of: [...new Set(payloads.map(({ peers }) => peers.length))] };
  };
  const onlyOneTells = async (among: number): Promise<string | false> => {
    const { by, of } = await told();
    return by.length === 1 && of.length === 1 && of[0] === among && by[0]!;
  };
  const teller = await until(() => onlyOneTells(3));
  const leaving = hosts.find((host) => host.nodeId === teller)!;
  await leaving.stop();
  const next = await until(() => onlyOneTells(2));
  assert.notEqual(next, teller);
  for (const host of hosts) if (host !== leaving) assert.equal(host.mesh.peers().length, 1);
});
