import assert from "node:assert/strict";
import { createServer as createHttp } from "node:http";
import { createServer } from "node:https";
import { createServer as createTcp, type AddressInfo, type Server, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { MeshCallError, service, type Host, type MeshOptions } from "@chimpbase/mesh";
import { createAuthority, expired, type Issued } from "../support/certificates.js";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";
import { PATH, RpcNode, type NodeOptions } from "./rpc-fixture.js";

const authority = createAuthority();
const stranger = createAuthority("stranger");
const { ca } = authority;
const own = authority.issue();

const named = (name: string) => service({ name, actions: { who: (_ctx, _args: undefined, self) => self.nodeId } });
const https = { advertisedUrl: "https://127.0.0.1:0", tls: { ca } } satisfies Partial<MeshOptions>;
const serving = (tls: object = {}) => ({ server: { port: 0, host: "127.0.0.1", tls: { ...own, ...tls } } });

const logged = (mesh: MeshFixture, text: string): number => mesh.logs.filter((line) => line.includes(text)).length;

test("two nodes with certificates of one CA call each other over https", async () => {
  await using mesh = await MeshFixture.open();
  const a = await mesh.started([named("first")], https, serving());
  const b = await mesh.started([named("second")], https, serving());
  await Promise.all([a.mesh.waitFor("v1.second"), b.mesh.waitFor("v1.first")]);
  assert.equal(await a.mesh.call("v1.second.who"), b.nodeId);
  assert.equal(await b.mesh.call("v1.first.who"), a.nodeId);
  assert.match(a.mesh.peers()[0]?.advertisedUrl ?? "", /^https:/);
});

test("the default advertised URL of a node with server.tls is https", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([named("first")], { advertisedUrl: undefined as never }, serving());
  const [row] = await mesh.query<{ advertised_url: string }>("SELECT advertised_url FROM _chimpbase_mesh_nodes");
  assert.match(row?.advertised_url ?? "", /^https:\/\//);
  assert.equal(new URL(row?.advertised_url ?? "").port, new URL(host.url ?? "").port);
});

test("a node that serves https and advertises http is warned", async () => {
  await using mesh = await MeshFixture.open();
  await mesh.started([named("first")], { advertisedUrl: "http://127.0.0.1:0" }, serving());
  assert.equal(logged(mesh, "the HTTP server speaks https"), 1);
});

test("nodes of which each asks for a certificate call each other with one, and a node without one is told so", async () => {
  await using mesh = await MeshFixture.open();
  const options = { ...https, tls: { ca, ...authority.issue({ names: ["node"] }) } };
  const a = await mesh.started([named("first")], options, serving({ ca }));
  const b = await mesh.started([named("second")], options, serving({ ca }));
  const without = await mesh.started([named("third")], https, serving({ ca }));
  await Promise.all([a.mesh.waitFor(["v1.second", "v1.third"]), without.mesh.waitFor("v1.second")]);
  assert.equal(await a.mesh.call("v1.second.who"), b.nodeId);
  assert.equal(await a.mesh.call("v1.third.who"), without.nodeId);
  await assert.rejects(without.mesh.call("v1.second.who"), (error) => error instanceof MeshCallError && error.retryable);
});

test("a rolling restart over https loses no call", { timeout: 60_000 }, async () => {
  await using mesh = await MeshFixture.open();
  const served = (): Promise<Host> => mesh.started([named("work")], https, serving());
  const caller = await mesh.started([named("caller")], https, serving());
  let nodes = [await served(), await served()];
  await caller.mesh.waitFor("v1.work");
  const answering = new Set<unknown>();
  let stopped = false;
  const call = async (): Promise<void> => {
    while (!stopped) answering.add(await caller.mesh.call("v1.work.who", undefined, { timeoutMs: 10_000 }));
  };
  const load = Promise.all(Array.from({ length: 4 }, call));
  for (let round = 0; round < 2; round++) {
    const [old, ...kept] = nodes as [Host, Host];
    // As a deployment does, it goes on once the new node is in use.
    await until(() => nodes.every(({ nodeId }) => answering.has(nodeId)), { timeoutMs: 10_000 });
    await old.stop();
    nodes = [...kept, await served()];
  }
  await until(() => nodes.every(({ nodeId }) => answering.has(nodeId)), { timeoutMs: 10_000 });
  stopped = true;
  await load;
});

interface Strange {
  readonly url: string;
  readonly connections: number;
  readonly requests: number;
}

/** An https server that answers every call, and counts. */
async function strange(t: TestContext, tls: Issued | null, more: object = {}): Promise<Strange> {
  const counts = { connections: 0, requests: 0 };
  const answer: Parameters<typeof createHttp>[1] = (_request, response) => {
    counts.requests++;
    response.end('{"ok":true,"result":"answered"}');
  };
  const server: Server = tls === null ? createHttp(answer) : createServer({ ...tls, ...more }, answer);
  server.on("connection", () => counts.connections++);
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return Object.assign(counts, { url: `http${tls === null ? "" : "s"}://127.0.0.1:${(server.address() as AddressInfo).port}` });
}

async function nodeWith(t: TestContext, client: NodeOptions["client"]): Promise<RpcNode> {
  const node = await RpcNode.start({ nodeId: "a", client: { ...client } });
  t.after(() => node.close());
  return node;
}

const peer = (url: string, nodeId = "b") => ({ nodeId, advertisedUrl: url, rpcPath: PATH, cpuLoad: 0 });

const untrusted: readonly [string, () => Issued, object, RegExp][] = [
  ["of an unknown CA", () => stranger.issue(), { ca }, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED/],
  ["of an own CA that the caller was not given", () => own, {}, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED/],
  ["that has expired", () => authority.issue({ valid: expired() }), { ca }, /CERT_HAS_EXPIRED/],
  ["for another name", () => authority.issue({ names: ["other"], addresses: [] }), { ca }, /ERR_TLS_CERT_ALTNAME_INVALID/],
];
for (const [what, certificate, tls, code] of untrusted) {
  test(`a peer with a certificate ${what} is sent nothing; the error names peer and reason, and the call goes to another`, async (t) => {
    const b = await strange(t, certificate());
    const a = await nodeWith(t, { tls });
    a.knows(peer(b.url));
    await assert.rejects(a.call("v1.x.y"), (error) => {
      assert.ok(error instanceof MeshCallError);
      assert.deepEqual([error.code, error.nodeId, error.retryable], ["CALL_FAILED", "b", true]);
      assert.match(error.message, new RegExp(`mesh peer b at ${b.url} cannot be trusted: its certificate is refused`));
      assert.match(error.message, code);
      return true;
    });
    a.suspected.length = 0;
    a.knows(peer((await strange(t, null)).url, "c"));
    for (let n = 0; n < 3; n++) assert.equal(await a.call("v1.x.y"), "answered");
    assert.equal(b.requests, 0);
  });
}

test("NODE_TLS_REJECT_UNAUTHORIZED does not turn verification off", async (t) => {
  const before = process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
  t.after(() => (before === undefined ? delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"] : (process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = before)));
  process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
  const b = await strange(t, stranger.issue());
  const a = await nodeWith(t, { tls: { ca } });
  await assert.rejects(a.knows(peer(b.url)).call("v1.x.y"), /cannot be trusted/);
  assert.equal(b.requests, 0);
});

test("a peer that demands a certificate, which this node has not, closes the connection; the error says what that may mean", async (t) => {
  const b = await strange(t, own, { ca, requestCert: true, rejectUnauthorized: true });
  const a = await nodeWith(t, { tls: { ca } });
  a.knows(peer(b.url));
  await assert.rejects(a.call("v1.x.y"), /dropped the connection before it answered: .*; if it asks for client certificates.*tls\.cert/);
  assert.equal(b.requests, 0);
});

const alerts: readonly [string, number][] = [["bad certificate", 42], ["unknown CA", 48], ["certificate required", 116]];
for (const [what, alert] of alerts) {
  test(`a peer that answers the handshake with the alert "${what}" was sent nothing, and the call goes to another`, async (t) => {
    const server = createTcp((socket) => socket.on("error", () => undefined).once("data", () => socket.end(Buffer.of(21, 3, 3, 0, 2, 2, alert)))).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    t.after(() => server.close());
    const a = await nodeWith(t, { tls: { ca } });
    a.knows(peer(`https://127.0.0.1:${(server.address() as AddressInfo).port}`));
    await assert.rejects(a.call("v1.x.y"), /mesh peer b at .* refuses the certificate of this node, or that it shows none/);
    a.suspected.length = 0;
    a.knows(peer((await strange(t, null)).url, "c"));
    for (let n = 0; n < 2; n++) assert.equal(await a.call("v1.x.y"), "answered");
  });
}

test("connections to an https peer are kept, and used again", async (t) => {
  const b = await strange(t, own);
  const a = await nodeWith(t, { tls: { ca }, connections: 2 });
  a.knows(peer(b.url));
  for (let n = 0; n < 20; n++) await Promise.all([a.call("v1.x.y"), a.call("v1.x.y"), a.call("v1.x.y")]);
  assert.deepEqual([b.connections, b.requests], [2, 60]);
});

test("https to a server that speaks plain http, and http to one that speaks https, are calls that failed", async (t) => {
  const plain = await strange(t, null);
  const encrypted = await strange(t, own);
  for (const url of [plain.url.replace("http:", "https:"), encrypted.url.replace("https:", "http:")]) {
    const a = await nodeWith(t, { tls: { ca } });
    await assert.rejects(a.knows(peer(url)).call("v1.x.y"), MeshCallError);
  }
  assert.deepEqual([plain.requests, encrypted.requests], [0, 0]);
});
