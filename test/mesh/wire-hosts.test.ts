import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { chimpbaseMesh, MeshCallError, service } from "@chimpbase/mesh";
import type { MeshError, Context, Host, HostOptions, MeshOptions, Registration } from "@chimpbase/mesh";
import { createAuthority } from "../support/certificates.js";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";
import { PATH } from "./rpc-fixture.js";

const authority = createAuthority();
const caller = service({ name: "caller", actions: {} });
const callee = () => service({ name: "callee", actions: { who: (ctx: Context) => ctx.mesh.nodeId() } });

interface Counts {
  posts: number;
  upgrades: number;
}

/** A host that counts what comes for its mesh, by POST and by upgrade. */
async function counting(mesh: MeshFixture, options: Partial<MeshOptions> = {}, host: Partial<HostOptions> = {}): Promise<{ readonly host: Host; readonly counts: Counts }> {
  const counts: Counts = { posts: 0, upgrades: 0 };
  const posts: Registration = { kind: "raw-route", name: "posts", handler: ({ url }) => { if (url === PATH) counts.posts++; return false; } };
  const upgrades: Registration = { kind: "upgrade", name: "upgrades", protocol: "chimpbase-mesh.1", handler: () => { counts.upgrades++; return false; } };
  const plugin = chimpbaseMesh({ services: [callee()], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", ...options });
  const started = mesh.bare({ kind: "plugin", name: "counting", dependsOn: [], registrations: [posts, upgrades, plugin] }, host);
  await started.start();
  return { host: started, counts };
}

/** Calls until one has come that was no POST. */
async function untilByWire(from: Host, { counts }: { readonly counts: Counts }): Promise<void> {
  await from.mesh.waitFor("v1.callee.who");
  await until(async () => {
    const { posts } = counts;
    await from.mesh.call("v1.callee.who");
    return counts.posts === posts;
  });
}

for (const scheme of ["http", "https"] as const) test(`calls between hosts go over one wire once it is made, over ${scheme}`, async () => {
  await using mesh = await MeshFixture.open();
  const tls = scheme === "https" ? { advertisedUrl: "https://127.0.0.1:0", tls: { ca: authority.ca } } : {};
  const serving = scheme === "https" ? { server: { port: 0, host: "127.0.0.1", tls: authority.issue() } } : {};
  const from = await mesh.started([caller], tls, serving);
  const to = await counting(mesh, tls, serving);
  await untilByWire(from, to);
  const { posts } = to.counts;
  for (const nodeId of await Promise.all(Array.from({ length: 100 }, () => from.mesh.call("v1.callee.who")))) assert.equal(nodeId, to.host.nodeId);
  assert.deepEqual(to.counts, { posts, upgrades: 1 });
});

test("nodes that sign say that they take no wires, and none is made to them", async () => {
  await using mesh = await MeshFixture.open();
  const from = await mesh.started([caller], { rpcAuth: "signed" });
  const to = await counting(mesh, { rpcAuth: "signed" });
  await from.mesh.waitFor("v1.callee.who");
  for (let i = 0; i < 5; i++) await from.mesh.call("v1.callee.who");
  await sleep(50);
  assert.deepEqual(to.counts, { posts: 5, upgrades: 0 });
  const rows = await mesh.query<{ metadata_json: string }>("SELECT metadata_json FROM _chimpbase_mesh_nodes");
  assert.ok(rows.every(({ metadata_json }) => !metadata_json.includes('"wire"')));
});

test("a host that stops while it is called on a wire fails no call, is left for others, and is soon gone", async () => {
  await using mesh = await MeshFixture.open();
  const from = await mesh.started([caller]);
  const to = await counting(mesh);
  await untilByWire(from, to);
  const other = await counting(mesh);
  await until(() => from.mesh.peers().length === 2);
  let stopped = false;
  const begunAt = performance.now();
  const stopping = to.host.stop().then(() => (stopped = true));
  const served: unknown[] = [];
  while (!stopped) served.push(...(await Promise.all(Array.from({ length: 8 }, () => from.mesh.call("v1.callee.who")))));
  await stopping;
  assert.equal(served.at(-1), other.host.nodeId);
  assert.ok(performance.now() - begunAt < 5_000, "no limit of the stop was waited for");
});

test("a host that stops ends what is under way on its wires, up to its drain limit", async () => {
  await using mesh = await MeshFixture.open();
  const from = await mesh.started([caller]);
  const gate: { release?: () => void } = {};
  const slow = service({ name: "slow", actions: {
    wait: () => new Promise<string>((resolve) => (gate.release = () => resolve("done"))),
    hang: () => new Promise(() => undefined),
  } });
  const to = await counting(mesh, { services: [slow, callee()] }, { drainTimeoutMs: 400 });
  await untilByWire(from, to);
  const [done, hung] = [from.mesh.call("v1.slow.wait"), from.mesh.call("v1.slow.hang").catch((error: unknown) => error)];
  await until(() => gate.release);
  const stopping = to.host.stop();
  await sleep(100);
  gate.release!();
  assert.equal(await done, "done");
  await stopping;
  assert.equal(((await hung) as { readonly code: string }).code, "CANCELLED");
});

test("a call that waits to be tried again when its host stops is told so at once", async () => {
  await using mesh = await MeshFixture.open();
  const from = await mesh.started([caller]);
  const failing = service({ name: "failing", actions: { fail: () => { throw new MeshCallError("not now"); } } });
  await mesh.started([failing]);
  await from.mesh.waitFor("v1.failing.fail");
  const call = from.mesh.call("v1.failing.fail", {}, { timeoutMs: 60_000, retry: { attempts: 9, delayMs: 50_000, jitter: 0 } }).catch((error: unknown) => error);
  await sleep(50);
  await from.stop();
  assert.equal(((await call) as MeshError).code, "MESH_NOT_RUNNING");
});

test("callers that stop leave nothing open at the nodes that they called", async () => {
  await using mesh = await MeshFixture.open();
  const from = await mesh.started([caller]);
  const to = await counting(mesh);
  await untilByWire(from, to);
  await from.stop();
  const begunAt = performance.now();
  await to.host.stop();
  assert.ok(performance.now() - begunAt < 900, "no caller's connection was waited for");
});
