import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo, LookupFunction } from "node:net";
import type { LookupAddress } from "node:dns";
import { test, type TestContext } from "node:test";
import { MeshCallError, MeshConfigurationError, chimpbaseMesh, service } from "@chimpbase/mesh";
import { AllowedPeers } from "#mesh/mesh/allowed-peers.js";
import { guardedLookup } from "#mesh/mesh/guarded-lookup.js";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";
import { PATH, RpcNode } from "./rpc-fixture.js";

const named = (name: string) => service({ name, actions: { who: (_ctx, _args: undefined, self) => self.nodeId } });
const OFFER = JSON.stringify([{ name: "bait", version: 1, actions: ["v1.bait.take"], events: [] }]);
const NOW = "(extract(epoch from clock_timestamp()) * 1000)::bigint";

interface Trap {
  readonly port: number;
  readonly connections: number;
}

/** Counts who comes. */
async function trap(t: TestContext): Promise<Trap> {
  const counts = { connections: 0 };
  const server = createServer((_request, response) => response.end('{"ok":true,"result":"taken"}')).listen(0, "127.0.0.1");
  server.on("connection", () => counts.connections++);
  await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return Object.assign(counts, { port: (server.address() as AddressInfo).port });
}

async function plant(mesh: MeshFixture, url: string): Promise<void> {
  await mesh.query(
    `INSERT INTO _chimpbase_mesh_nodes VALUES ('planted', $1, '{}', $2, ${NOW}, ${NOW})
     ON CONFLICT (node_id) DO UPDATE SET advertised_url = excluded.advertised_url, last_heartbeat_ms = excluded.last_heartbeat_ms`,
    [url, OFFER],
  );
}

const warnings = (mesh: MeshFixture, text: string): string[] => mesh.logs.filter((line) => line.includes('"level":40') && line.includes(text));

test("a row whose URL no entry allows is seen but never called, and warned of once for each URL that it gives", async (t) => {
  const bait = await trap(t);
  await using mesh = await MeshFixture.open();
  await plant(mesh, `http://127.0.0.1:${bait.port}`);
  const host = await mesh.started([named("own")], { allowedPeers: ["api", "*.mesh.internal", "10.0.0.0/8"], heartbeatMs: 200, offlineAfterMs: 60_000 });
  await until(() => host.mesh.peers().length === 1);
  await assert.rejects(host.mesh.call("v1.bait.take"), { code: "NO_AVAILABLE_NODE" });
  const told = (): string[] => warnings(mesh, "allowedPeers has no entry for");
  assert.equal(told().length, 1);
  assert.match(told()[0] ?? "", new RegExp(`http://127\\.0\\.0\\.1:${bait.port}; it is not called`));
  await plant(mesh, `http://[::ffff:127.0.0.1]:${bait.port}`);
  await until(() => told().length === 2);
  await assert.rejects(host.mesh.call("v1.bait.take"), { code: "NO_AVAILABLE_NODE" });
  assert.equal(bait.connections, 0);
});

test("a row that comes to be allowed is called", async (t) => {
  const peer = await trap(t);
  await using mesh = await MeshFixture.open();
  await plant(mesh, `http://169.254.169.254:${peer.port}`);
  const host = await mesh.started([named("own")], { allowedPeers: ["127.0.0.0/8"], heartbeatMs: 200, offlineAfterMs: 60_000 });
  await assert.rejects(host.mesh.call("v1.bait.take"), { code: "NO_AVAILABLE_NODE" });
  await plant(mesh, `http://2130706433:${peer.port}`);
  await host.mesh.waitFor("v1.bait");
  assert.equal(await host.mesh.call("v1.bait.take"), "taken");
});

test("nodes that allow each other call each other; their own address outside of their list is warned of", async () => {
  await using mesh = await MeshFixture.open();
  const a = await mesh.started([named("first")], { allowedPeers: ["http://127.0.0.1"] });
  const b = await mesh.started([named("second")], { allowedPeers: ["https://*", "10.0.0.0/8"] });
  await a.mesh.waitFor("v1.second");
  assert.equal(await a.mesh.call("v1.second.who"), b.nodeId);
  await until(() => warnings(mesh, "its own allowedPeers does not allow").length === 1);
  await until(() => b.mesh.peers().length === 1);
  await assert.rejects(b.mesh.call("v1.first.who"), { code: "NO_AVAILABLE_NODE" });
});

async function callerOf(t: TestContext, url: string, ...allowed: string[]): Promise<RpcNode> {
  const node = await RpcNode.start({ nodeId: "a", client: { allowed: new AllowedPeers(allowed) } });
  t.after(() => node.close());
  return node.knows({ nodeId: "b", advertisedUrl: url, rpcPath: PATH, cpuLoad: 0 });
}

test("a name that only a range may allow is called where it resolves into the range, else nothing is sent", async (t) => {
  const [b, c] = [await trap(t), await trap(t)];
  const url = `http://localhost:${b.port}`;
  const refused = await callerOf(t, url, "10.0.0.0/8", `127.0.0.1:${c.port}`);
  await assert.rejects(refused.call("v1.x.y"), (error) => {
    assert.ok(error instanceof MeshCallError);
    assert.match(error.message, /mesh peer b at .* cannot be reached: localhost resolves to .*127\.0\.0\.1.*allowedPeers does not allow/);
    return true;
  });
  // Nothing was sent, so the call may go to another within the same attempt.
  refused.suspected.length = 0;
  refused.knows({ nodeId: "c", advertisedUrl: `http://127.0.0.1:${c.port}`, rpcPath: PATH, cpuLoad: 0 });
  for (let n = 0; n < 3; n++) assert.equal(await refused.call("v1.x.y"), "taken");
  assert.equal(b.connections, 0);
  assert.equal(await (await callerOf(t, url, "127.0.0.0/8")).call("v1.x.y"), "taken");
});

test("the transport itself sends nothing to a URL that is refused", async (t) => {
  const b = await trap(t);
  const a = await callerOf(t, `http://127.0.0.1:${b.port}`, "api");
  await assert.rejects(a.call("v1.x.y"), /mesh peer b advertises an address that mesh option allowedPeers does not allow/);
  assert.deepEqual([b.connections, a.suspected], [0, ["b"]]);
});

type Resolve = Parameters<typeof guardedLookup>[2];

function lookUp(found: readonly LookupAddress[], all: boolean): Promise<unknown[]> {
  const resolve = ((_name: string, _options: object, answer: (error: null, list: readonly LookupAddress[]) => void) => answer(null, found)) as unknown as Resolve;
  const guarded: LookupFunction = guardedLookup(new AllowedPeers(["10.0.0.0/8", "fd00::/8"]), "http://name", resolve);
  return new Promise((done) => guarded("name", { all }, (...answer) => done(answer)));
}

test("of the addresses of a name those outside of the ranges are left out", async () => {
  const good = { address: "10.0.0.1", family: 4 };
  const mapped = { address: "::ffff:10.0.0.2", family: 6 };
  const bad = [{ address: "127.0.0.1", family: 4 }, { address: "::1", family: 6 }, { address: "::ffff:127.0.0.1", family: 6 }];
  assert.deepEqual(await lookUp([...bad, good, mapped], true), [null, [good, mapped]]);
  assert.deepEqual(await lookUp([...bad, good], false), [null, "10.0.0.1", 4]);
  for (const found of [bad, []]) {
    const [error] = await lookUp(found, true);
    assert.match((error as Error).message, /^name resolves to .*allowedPeers does not allow$/);
  }
});

test("entries that are none are refused by chimpbaseMesh", () => {
  const make = (allowedPeers: unknown) => () => chimpbaseMesh({ services: [named("x")], meshToken: "MESH_TOKEN", allowedPeers } as Parameters<typeof chimpbaseMesh>[0]);
  for (const given of ["api", [], [5], {}, null, ["api/"]]) assert.throws(make(given), (error) => error instanceof MeshConfigurationError && /allowedPeers/.test(error.message));
  make(["api"])();
});
