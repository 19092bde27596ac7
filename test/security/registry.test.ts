import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { MeshCallError, MeshError, MeshNoAvailableNodeError, service } from "@chimpbase/mesh";
import type { Context } from "@chimpbase/mesh";
import { createLogger } from "#mesh/logger.js";
import { WAKE_CHANNEL } from "#mesh/runtime/wake.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { until } from "../support/wait.js";

const NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const hello = service({ name: "hello", version: 1, actions: { who: async (ctx: Context) => ctx.mesh.nodeId() } });
const caller = service({ name: "caller", version: 1 });
const fast = { heartbeatMs: 100, offlineAfterMs: 60_000 };
const offer = (name: string): string => JSON.stringify([{ name, version: 1, actions: [`v1.${name}.who`], events: [] }]);

const write = (mesh: MeshFixture, nodeId: string, url: string | null, metadata: string, services: string): Promise<unknown> =>
  mesh.query(`INSERT INTO _chimpbase_mesh_nodes VALUES ($1, $2, $3, $4, ${NOW}, ${NOW})`, [nodeId, url, metadata, services]);

/** A server that notes what it is asked. */
async function trap(t: TestContext, answer: (request: IncomingMessage) => [number, Record<string, string>, string]): Promise<{ url: string; asked: IncomingMessage[] }> {
  const asked: IncomingMessage[] = [];
  const server: Server = createServer((request, response) => {
    asked.push(request);
    const [status, headers, body] = answer(request);
    request.resume().on("end", () => response.writeHead(status, headers).end(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** A server whose answers never end: a piece each `everyMs`, as fast as it can where that is 0. Resolves with its URL. */
async function endless(t: TestContext, piece: string, everyMs: number): Promise<string> {
  const server = createServer((_request, response) => {
    const next = (): void => {
      if (response.destroyed) return;
      if (response.write(piece)) setTimeout(next, everyMs);
      else response.once("drain", next);
    };
    next();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("addresses with credentials, other schemes or tricks in their path are never called", async (t) => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([caller], fast);
  const { url, asked } = await trap(t, () => [200, {}, '{"ok":true,"result":1}']);
  const authority = new URL(url).host;
  const paths = ["//evil", "/../x", "/%2e%2e/x", "/x?y", "/x#y", "@evil/", "/a\r\nhost: b", "/a b", "/\\evil", "", "x", "http://evil/"];
  const addresses = [`http://user:secret@${authority}`, `ftp://${authority}`, `file:///etc/passwd`, `javascript:alert(1)`, `${url}?x`, `${url}#x`, "http://", "", `//${authority}`, `http://${authority}\u0000`.replace("\u0000", "^"), "unix:/var/run/docker.sock"];
  await Promise.all([
    ...paths.map((rpcPath, index) => write(mesh, `path-${index}`, url, JSON.stringify({ $mesh: { rpcPath } }), offer(`p${index}`))),
    ...addresses.map((address, index) => write(mesh, `url-${index}`, address, "{}", offer(`u${index}`))),
  ]);
  await until(() => host.mesh.peers().length === paths.length + addresses.length);
  for (const [prefix, list] of [["p", paths], ["u", addresses]] as const) {
    for (const [index, tried] of list.entries()) await assert.rejects(host.mesh.call(`v1.${prefix}${index}.who`), MeshNoAvailableNodeError, tried);
  }
  assert.deepEqual([asked.length, mesh.logs.filter((line) => line.includes("secret"))], [0, []]);
});

test("a peer that redirects sends no call, and no token, anywhere else", async (t) => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([caller], fast);
  const target = await trap(t, () => [200, {}, '{"ok":true,"result":"stolen"}']);
  for (const status of [301, 302, 303, 307, 308]) {
    const bait = await trap(t, () => [status, { location: `${target.url}/__chimpbase/mesh/rpc` }, '{"ok":true,"result":"bait"}']);
    await write(mesh, `bait-${status}`, bait.url, "{}", offer(`b${status}`));
    await until(() => host.mesh.peers().some(({ nodeId }) => nodeId === `bait-${status}`));
    await assert.rejects(host.mesh.call(`v1.b${status}.who`), MeshCallError);
    assert.equal(bait.asked.length, 1);
  }
  assert.equal(target.asked.length, 0);
});

test("a peer that answers with nonsense, without an end or with what it was not asked harms its own calls only", async (t) => {
  await using mesh = await MeshFixture.open();
  const [host, peer] = await Promise.all([mesh.started([caller], fast), mesh.started([hello])]);
  const answers: [number, Record<string, string>, string][] = [
    [200, {}, "["], [200, {}, '{"ok":"yes"}'], [200, { "content-encoding": "gzip" }, "x"], [204, {}, ""], [500, {}, '{"ok":true}'],
    [200, {}, `{"ok":false,"error":${JSON.stringify("x".repeat(100_000))},"name":"__proto__","status":-1,"code":{},"data":{"__proto__":1}}`],
    [200, {}, "[".repeat(200_000)], [401, {}, ""], [101, {}, ""],
  ];
  for (const [index, answer] of answers.entries()) {
    const { url } = await trap(t, () => answer);
    await write(mesh, `odd-${index}`, url, "{}", offer(`o${index}`));
  }
  await write(mesh, "dripping", await endless(t, "x", 10), "{}", offer("dripping"));
  await write(mesh, "flooding", await endless(t, "x".repeat(1024 * 1024), 0), "{}", offer("flooding"));
  await host.mesh.waitFor(["v1.hello", "v1.dripping", "v1.flooding", ...answers.map((_, index) => `v1.o${index}`)]);
  await assert.rejects(host.mesh.call("v1.dripping.who", {}, { timeoutMs: 300 }), { code: "TIMEOUT" });
  await assert.rejects(host.mesh.call("v1.flooding.who", {}, { timeoutMs: 10_000 }), { code: "PAYLOAD_TOO_LARGE" });
  for (const index of answers.keys()) await assert.rejects(host.mesh.call(`v1.o${index}.who`, {}, { timeoutMs: 500 }), MeshError, String(index));
  assert.equal(await host.mesh.call("v1.hello.who"), peer.nodeId);
});

test("rows of 10 MB, and 10,000 rows, keep no node from its work", async () => {
  await using mesh = await MeshFixture.open();
  const [host, peer] = await Promise.all([mesh.started([caller], { heartbeatMs: 500, offlineAfterMs: 60_000 }), mesh.started([hello])]);
  await host.mesh.waitFor("v1.hello");
  const big = "x".repeat(10 * 1024 * 1024);
  await write(mesh, "big-metadata", "http://127.0.0.1:1", JSON.stringify({ big }), offer("big"));
  await write(mesh, "big-services", "http://127.0.0.1:1", "{}", JSON.stringify([{ name: big, version: 1, actions: [big], events: [] }]));
  await until(() => host.mesh.peers().length === 3);
  await assert.rejects(host.mesh.call("v1.big.who"), MeshNoAvailableNodeError);
  await mesh.query(`INSERT INTO _chimpbase_mesh_nodes SELECT 'many-' || n, 'http://127.0.0.1:1', '{}', $1, ${NOW}, ${NOW} FROM generate_series(1, 10000) AS n`, [offer("many")]);
  let longestMs = 0;
  let last = process.cpuUsage();
  // What it computes at a stretch: how long that takes is the machine's matter.
  const note = (): void => {
    const { user, system } = process.cpuUsage(last);
    longestMs = Math.max(longestMs, (user + system) / 1_000);
    last = process.cpuUsage();
  };
  const timer = setInterval(note, 5);
  await until(() => host.mesh.peers().length === 10_003, { timeoutMs: 30_000 });
  note();
  clearInterval(timer);
  assert.ok(longestMs < 2_500, `${longestMs} ms`);

  assert.equal(await host.mesh.call("v1.hello.who"), peer.nodeId);
});

test("forged notifications of any size and number cost a look, and change nothing", async () => {
  await using mesh = await MeshFixture.open();
  const got: unknown[] = [];
  const host = await mesh.started([service({ name: "hears", version: 1, events: { told: (_ctx: Context, payload: unknown) => void got.push(payload) } })]);
  const storage = await openPostgres({ url: mesh.url, log: createLogger({ level: "silent" }) });
  const channel = storage.channel(WAKE_CHANNEL);
  const wake = { nodeId: "x", events: "any", lanes: ["__proto__", "q:none"], delayed: [["q:none", 1]] } as const;
  const full = Array.from({ length: 1_200 }, (_, index) => `${index}`);
  const wakes = [wake, { ...wake, events: ["told", "none"] }, { ...wake, events: full, lanes: [] }, { ...wake, events: "none", lanes: full }, { ...wake, lanes: [{}] }];
  const forged = ["", "x".repeat(7_900), "[".repeat(7_900), "null", ...wakes.map((each) => JSON.stringify(each)), `{"__proto__":${JSON.stringify(wake)}}`];
  for (let round = 0; round < 20; round++) for (const payload of forged) await storage.query("SELECT pg_notify($1, $2)", [channel, payload]);
  await storage.close();
  await host.mesh.emit("told", 1);
  await until(() => got.length > 0);
  assert.deepEqual([got, host.mesh.peers()], [[1], []]);
});
