import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { chimpbaseMesh, onStop, route, service } from "@chimpbase/mesh";
import type { Context, Host } from "@chimpbase/mesh";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";

const codeOf = (call: Promise<unknown>): Promise<unknown> => call.then(() => null, (error: { readonly code: string }) => error.code);
const rows = (mesh: MeshFixture) => mesh.query<{ node_id: string; metadata_json: string }>("SELECT node_id, metadata_json FROM _chimpbase_mesh_nodes");

test("a node that stops marks itself draining, then deletes its row, then says that it leaves", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  const watcher = await mesh.started([service({ name: "watcher", version: 1, events: {
    "__chimpbase.mesh.info.*": async (ctx: Context, { nodeId }: { nodeId: string }) => {
      const row = (await rows(mesh)).find(({ node_id }) => node_id === nodeId);
      if (nodeId === leaving?.nodeId) seen.push(`${ctx.event!.name.split(".").at(-1)} ${row === undefined ? "no row" : (JSON.parse(row.metadata_json) as { $mesh: { draining: boolean } }).$mesh.draining}`);
    },
  } })]);
  let release: (() => void) | undefined;
  const slow = service({ name: "slow", version: 1, actions: { wait: () => new Promise<string>((resolve) => (release = () => resolve("done"))), quick: () => "served" } });
  const leaving: Host = await mesh.started([slow]);
  await watcher.mesh.waitFor("v1.slow.wait");
  const call = watcher.mesh.call("v1.slow.wait");
  await until(() => release !== undefined);
  const stopped = leaving.stop();
  await until(() => seen.includes("announce true"));
  assert.equal(watcher.mesh.peers()[0]?.nodeId, leaving.nodeId, "a draining node is still a peer");
  // The watcher's handler may hear of the row before its cache has read it; until then the draining node serves.
  const codes: unknown[] = [];
  await until(async () => codes.push(await codeOf(watcher.mesh.call("v1.slow.quick"))) && codes.at(-1) !== null);
  assert.equal(codes.at(-1), "NO_AVAILABLE_NODE");
  await assert.rejects(watcher.mesh.call("v1.slow.wait"), { code: "NO_AVAILABLE_NODE" });
  release!();
  assert.equal(await call, "done");
  await stopped;
  await until(() => seen.at(-1) === "leave no row");
});

interface Answer {
  readonly status: number;
  readonly undelivered: unknown;
}

/** A call as a caller makes it that knows nothing of the registry. */
async function post(host: Host, actionName: string): Promise<Answer> {
  const body = JSON.stringify({ actionName, args: null, callerNodeId: "stranger", deadlineMs: 5_000 });
  const response = await fetch(`${host.url}/__chimpbase/mesh/rpc`, { method: "POST", headers: { "x-chimpbase-mesh-token": "t0ken" }, body });
  const { undelivered } = (await response.json()) as { undelivered?: boolean };
  return { status: response.status, undelivered };
}

const held = () => {
  const gate: { release?: () => void } = {};
  const definition = service({ name: "held", version: 1, actions: { wait: () => new Promise<void>((resolve) => (gate.release = resolve)), quick: () => "served" } });
  return { gate, definition };
};

test("a node that stops is unready and marked at once, serves calls while its peers are being told, and refuses those that come later", async () => {
  await using mesh = await MeshFixture.open();
  await mesh.started([service({ name: "peer", version: 1, actions: {} })]);
  const { gate, definition } = held();
  const leaving = await mesh.started([definition]);
  await until(() => leaving.mesh.peers().length === 1);
  const underWay = post(leaving, "v1.held.wait");
  await until(() => gate.release !== undefined);

  const stopped = leaving.stop();
  const [ready, first] = await Promise.all([fetch(`${leaving.url}/readyz`), post(leaving, "v1.held.quick")]);
  assert.equal(ready.status, 503);
  assert.equal(first.status, 200);
  const answers: Answer[] = [];
  await until(async () => answers.push(await post(leaving, "v1.held.quick")) && answers.at(-1)!.status !== 200);
  assert.deepEqual(answers.at(-1), { status: 503, undelivered: true });
  const marked = (await rows(mesh)).filter(({ metadata_json }) => (JSON.parse(metadata_json) as { $mesh: { draining: boolean } }).$mesh.draining);
  assert.deepEqual(marked.map(({ node_id }) => node_id), [leaving.nodeId]);
  assert.equal((await post(leaving, "v1.held.quick")).status, 503);

  gate.release!();
  assert.equal((await underWay).status, 200);
  await stopped;
});

test("a node that stops with nobody to tell refuses calls, and still ends those under way", async () => {
  await using mesh = await MeshFixture.open();
  const { gate, definition } = held();
  const leaving = await mesh.started([definition]);
  const underWay = post(leaving, "v1.held.wait");
  await until(() => gate.release !== undefined);
  const stopped = leaving.stop();
  await until(async () => (await post(leaving, "v1.held.quick")).status === 503);
  gate.release!();
  assert.equal((await underWay).status, 200);
  await stopped;
});

test("calls to a node that stops go to another once it refuses, also where they are started in the same moment", async () => {
  await using mesh = await MeshFixture.open();
  const caller = await mesh.started([service({ name: "caller", version: 1, actions: {} })]);
  const twin = () => service({ name: "twin", version: 1, actions: { who: (ctx: Context) => ctx.mesh.nodeId() } });
  const [leaving, staying] = [await mesh.started([twin()]), await mesh.started([twin()])];
  await until(() => caller.mesh.peers().length === 2);
  let stopped = false;
  const stopping = leaving.stop().then(() => (stopped = true));
  const servedBy: unknown[] = [];
  while (!stopped) servedBy.push(...(await Promise.all(Array.from({ length: 4 }, () => caller.mesh.call("v1.twin.who")))));
  await stopping;
  assert.equal(servedBy.at(-1), staying.nodeId);
});

/** When requests came in at a node, whatever became of them. Those on wires are not seen. */
function arrivalsAt(host: Host): Disposable & { readonly times: readonly number[] } {
  const port = Number(new URL(host.url!).port);
  const times: number[] = [];
  const note = (message: unknown): void => {
    if ((message as { readonly request: IncomingMessage }).request.socket.localPort === port) times.push(performance.now());
  };
  subscribe("http.server.request.start", note);
  return { times, [Symbol.dispose]: () => void unsubscribe("http.server.request.start", note) };
}

test("peers stop choosing a node that drains half a second after it was told to stop, at the latest, and miss no call for it", async () => {
  await using mesh = await MeshFixture.open();
  const withoutWires = { rpcAuth: "signed" } as const;
  const caller = await mesh.started([service({ name: "caller", version: 1, actions: {} })], withoutWires);
  const { gate, definition } = held();
  const twin = service({ name: "twin", version: 1, actions: { who: (ctx: Context) => ctx.mesh.nodeId() } });
  const [leaving, staying] = [await mesh.started([twin, definition], withoutWires), await mesh.started([twin], withoutWires)];
  await until(() => caller.mesh.peers().length === 2);
  const underWay = caller.mesh.call("v1.held.wait", null, { timeoutMs: 30_000 });
  await until(() => gate.release !== undefined);

  using arrivals = arrivalsAt(leaving);
  const servedBy = new Set<unknown>();
  const call = async (): Promise<void> => void servedBy.add(await caller.mesh.call("v1.twin.who"));
  await until(async () => (await call(), servedBy.has(leaving.nodeId) && servedBy.has(staying.nodeId)));
  const toldAt = performance.now();
  const stopped = leaving.stop();
  while (performance.now() - toldAt < 2_000) await call();
  const lastChosenMs = arrivals.times.at(-1)! - toldAt;
  assert.ok(lastChosenMs <= 500, `chosen ${lastChosenMs} ms after stop()`);

  gate.release!();
  await Promise.all([underWay, stopped]);
});

test("a handler that is under way while its node stops still calls other nodes and emits", async () => {
  await using mesh = await MeshFixture.open();
  const heard: unknown[] = [];
  const other = service({ name: "other", version: 1, actions: { ask: () => "answer" }, events: { "leaver.said": (_ctx: Context, payload: unknown) => void heard.push(payload) } });
  const watcher = await mesh.started([other]);
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  let begun = false;
  const slow = service({ name: "slow", version: 1, actions: {
    run: async (ctx: Context) => {
      begun = true;
      await gate;
      await ctx.mesh.emit("leaver.said", "goodbye");
      return ctx.mesh.call("v1.other.ask");
    },
    quick: () => null,
  } });
  const leaving = await mesh.started([slow]);
  await leaving.mesh.waitFor("v1.other");
  await watcher.mesh.waitFor("v1.slow");
  const call = watcher.mesh.call("v1.slow.run");
  await until(() => begun);
  const stopped = leaving.stop();
  await until(async () => (await post(leaving, "v1.slow.quick")).status === 503);
  go();
  assert.equal(await call, "answer");
  await stopped;
  await until(() => heard.length > 0);
  assert.deepEqual(heard, ["goodbye"]);
});

test("a call that comes late to a node with a web route before its mesh still learns that it was not begun", async () => {
  await using mesh = await MeshFixture.open();
  const answers: Answer[] = [];
  const { definition } = held();
  const leaving = mesh.bare(
    { kind: "plugin", name: "web", dependsOn: [], registrations: [route("web", () => null), onStop(async () => void answers.push(await post(leaving, "v1.held.quick")))] },
  );
  leaving.register(chimpbaseMesh({ services: [definition], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }));
  await leaving.start();
  await leaving.stop();
  assert.deepEqual(answers, [{ status: 503, undelivered: true }]);
});

test("a service that is being registered when its node stops does not bring the node's row back", async () => {
  await using mesh = await MeshFixture.open();
  const leaving = await mesh.started([held().definition], {}, { drainTimeoutMs: 20 });
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  let starting = false;
  const registered = codeOf(leaving.mesh.register(service({ name: "late", version: 1, actions: {}, started: () => { starting = true; return gate; } })));
  await until(() => starting);
  const stopped = leaving.stop();
  await until(async () => (await rows(mesh)).length === 0);
  go();
  assert.equal(await registered, "MESH_NOT_RUNNING");
  await stopped;
  assert.deepEqual(await rows(mesh), []);
});

test("a stopped hook that never ends is left behind: the mesh closes all the same", async () => {
  await using mesh = await MeshFixture.open();
  const leaving = await mesh.started([service({ name: "stuck", version: 1, actions: {}, stopped: () => new Promise<void>(() => undefined) })], {}, { drainTimeoutMs: 20 });
  await leaving.stop();
  assert.ok(mesh.logs.some((line) => line.includes("mesh services have not stopped within")));
});
