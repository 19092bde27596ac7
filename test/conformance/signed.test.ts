import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshUnauthorizedError, service, type Context, type Host, type MeshOptions } from "@chimpbase/mesh";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { post } from "../mesh/rpc-fixture.js";
import { postSigned, Signer } from "../mesh/signing.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

const SECRET = "t0ken";
const front = service({ name: "front", version: 1, actions: { leaf: async (_ctx: Context, args: unknown) => args } });
const math = service({
  name: "math", version: 1,
  actions: {
    echo: async (_ctx: Context, args: unknown) => args,
    node: async (ctx: Context) => ctx.mesh.nodeId(),
    back: async (ctx: Context, args: unknown) => ctx.mesh.call("v1.front.leaf", args),
  },
});
/** Of a node that shall soon see what a test has written into the table. */
const OFTEN = { heartbeatMs: 200, offlineAfterMs: 60_000 };
const portOf = (host: Host): { readonly port: number } => ({ port: Number(new URL(host.url!).port) });

interface Load {
  readonly failures: readonly unknown[];
  /** Resolves once so many calls more have ended. */
  more(calls: number): Promise<unknown>;
  end(): Promise<void>;
}

/** Calls from one node without retries, until its end. */
function loadFrom(host: Host, call: (host: Host, n: number) => Promise<unknown>): Load {
  const failures: unknown[] = [];
  let running = true;
  let calls = 0;
  const loops = Array.from({ length: 8 }, async () => {
    while (running) await call(host, calls++).catch((error: unknown) => failures.push(error));
  });
  return {
    failures,
    more: (count) => { const from = calls; return until(() => calls > from + count); },
    end: async () => { running = false; await Promise.all(loops); },
  };
}

test("a host that signs says so in its row, refuses tokens, and answers those who sign", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([math], { rpcAuth: "signed" });
  const plain = await mesh.started([front]);
  const auths = await mesh.query<{ node_id: string; auth: string | null }>("SELECT node_id, metadata_json::json -> '$mesh' ->> 'auth' AS auth FROM _chimpbase_mesh_nodes");
  assert.deepEqual(new Map(auths.map(({ node_id, auth }) => [node_id, auth])), new Map([[host.nodeId, "signed"], [plain.nodeId, null]]));

  const body = { actionName: "v1.math.echo", args: [1], callerNodeId: "x", deadlineMs: 1000 };
  assert.equal((await post(portOf(host), body, { token: SECRET })).status, 401);
  const reply = await postSigned(portOf(host), new Signer(SECRET, host.nodeId).make({ body }));
  assert.deepEqual([reply.status, reply.json, reply.signed], [200, { ok: true, result: [1] }, true]);
  const elsewhere = await postSigned(portOf(host), new Signer(SECRET, plain.nodeId).make({ body }));
  assert.deepEqual([elsewhere.status, elsewhere.json["data"], elsewhere.signed], [421, { advertisedUrl: host.url }, true]);
});

test("the secret of hosts that sign is in no byte between them", async (t) => {
  await using mesh = await MeshFixture.open();
  const sent: string[] = [];
  const callee = mesh.host([math], { rpcAuth: "signed" });
  await callee.start();
  const relay = await relayTo(callee.url!);
  t.after(() => relay.close());
  relay.rewrite = (bytes) => { sent.push(bytes.toString("latin1")); return bytes; };
  const caller = await mesh.started([front], { rpcAuth: "signed", ...OFTEN });
  await caller.mesh.waitFor("v1.math");
  await mesh.query("UPDATE _chimpbase_mesh_nodes SET advertised_url = $1 WHERE node_id = $2", [relay.url, callee.nodeId]);
  await until(async () => {
    assert.equal(await caller.mesh.call("v1.math.echo", 1), 1);
    return sent.length > 0;
  });
  const bytes = sent.join("");
  assert.match(bytes, /x-chimpbase-mesh-signature: v1;key=/);
  assert.doesNotMatch(bytes, /t0ken|x-chimpbase-mesh-token/);
});

for (const [rpcAuth, what] of [["token", "tokens"], ["signed", "keys"]] as const) {
  test(`${what} are rotated between hosts: OLD and NEW, NEW and OLD, NEW`, async () => {
    await using mesh = await MeshFixture.open();
    const secrets = { values: { OLD: "old-secret", NEW: "new-secret" } };
    const start = (services: Parameters<MeshFixture["started"]>[0], ...meshToken: string[]): Promise<Host> => mesh.started(services, { rpcAuth, meshToken }, { secrets });
    const caller = await start([front], "OLD", "NEW");
    for (const names of [["OLD"], ["OLD", "NEW"], ["NEW", "OLD"]]) {
      const callee = await start([math], ...names);
      await Promise.all([caller.mesh.waitFor("v1.math"), callee.mesh.waitFor("v1.front")]);
      assert.equal(await caller.mesh.call("v1.math.back", names[0], { nodeId: callee.nodeId }), names[0]);
      await callee.stop();
    }
    const late = await start([math], "NEW");
    await caller.mesh.waitFor("v1.math");
    await assert.rejects(caller.mesh.call("v1.math.echo", 1, { nodeId: late.nodeId }), MeshUnauthorizedError);
  });
}

for (const [from, to] of [["token", "signed"], ["signed", "token"]] as const) {
  test(`nodes go over from ${from} to ${to} one by one, and no call fails`, async () => {
    await using mesh = await MeshFixture.open();
    const start = (rpcAuth: "token" | "signed"): Promise<Host> => mesh.started([front, math], { rpcAuth, defaultStrategy: "round-robin" });
    const nodes = [await start(from), await start(from), await start(from)];
    const allMeet = (): Promise<unknown> => until(() => nodes.every((node) => node.mesh.peers().length === nodes.length - 1));
    await allMeet();
    const loads = new Map<Host, Load>();
    const failures: unknown[] = [];
    const begin = (node: Host): void => void loads.set(node, loadFrom(node, (host, n) => host.mesh.call("v1.math.back", n)));
    const end = async (node: Host): Promise<void> => {
      await loads.get(node)!.end();
      failures.push(...loads.get(node)!.failures);
    };
    nodes.forEach(begin);
    for (let turn = 0; turn < 3; turn++) {
      const old = nodes.shift()!;
      await Promise.all(nodes.map((node) => loads.get(node)!.more(30)));
      await end(old);
      await old.stop();
      const next = await start(to);
      nodes.push(next);
      await allMeet();
      begin(next);
    }
    await Promise.all(nodes.map((node) => loads.get(node)!.more(30)));
    await Promise.all(nodes.map(end));
    assert.deepEqual(failures, []);
  });
}

test("a host that comes back at its fixed address after a crash is not taken for what it was, and no call fails", async () => {
  await using mesh = await MeshFixture.open();
  const options = { rpcAuth: "signed" } satisfies Partial<MeshOptions>;
  const [caller, steady, first] = await Promise.all([mesh.started([front], { ...options, ...OFTEN }), mesh.started([math], options), mesh.started([math], options)]);
  const { port } = portOf(first);
  await until(() => caller.mesh.peers().length === 2);
  await stopAndLeaveRow(mesh, first);
  await until(() => caller.mesh.peers().length === 2);
  const load = loadFrom(caller, (host) => host.mesh.call("v1.math.node"));
  await load.more(20);
  const again = await mesh.started([math], { ...options, advertisedUrl: `http://127.0.0.1:${port}` }, { server: { port, host: "127.0.0.1" } });
  // The old row is tried again when the suspicion of its refused connections is over.
  await until(() => mesh.logs.some((line) => line.includes("it is for another node")));
  await load.more(100);
  await until(async () => (await caller.mesh.call("v1.math.node")) === again.nodeId);
  await load.end();
  assert.deepEqual(load.failures, []);
  assert.ok(steady.mesh.peers().some(({ nodeId }) => nodeId === again.nodeId));
});

test("a host that crashes with tokens, and comes back signed at its fixed address, refuses those that hold its old row, until it expires", async () => {
  await using mesh = await MeshFixture.open();
  const offlineAfterMs = 3_000;
  const [caller, first] = await Promise.all([mesh.started([front], { heartbeatMs: 200, offlineAfterMs }), mesh.started([math])]);
  const { port } = portOf(first);
  await caller.mesh.waitFor("v1.math");
  await stopAndLeaveRow(mesh, first);
  await until(() => caller.mesh.peers().some(({ nodeId }) => nodeId === first.nodeId));
  const again = await mesh.started([math], { ...OFTEN, rpcAuth: "signed", advertisedUrl: `http://127.0.0.1:${port}` }, { server: { port, host: "127.0.0.1" } });
  await assert.rejects(caller.mesh.call("v1.math.node", null, { nodeId: first.nodeId }), MeshUnauthorizedError);
  await until(() => caller.mesh.peers().every(({ nodeId }) => nodeId !== first.nodeId), { timeoutMs: offlineAfterMs + 2_000 });
  assert.equal(await caller.mesh.call("v1.math.node"), again.nodeId);
});

/** What a crash leaves: the port is free, and the row still there. */
async function stopAndLeaveRow(mesh: MeshFixture, host: Host): Promise<void> {
  const [row] = await mesh.query<Record<string, unknown>>("SELECT * FROM _chimpbase_mesh_nodes WHERE node_id = $1", [host.nodeId]);
  await host.stop();
  await mesh.query(
    `INSERT INTO _chimpbase_mesh_nodes SELECT $1, $2, $3, $4, $5, (extract(epoch FROM clock_timestamp()) * 1000)::bigint`,
    [row!["node_id"], row!["advertised_url"], row!["metadata_json"], row!["services_json"], row!["started_at_ms"]],
  );
}

test("a local-only host takes the option, and has no use for it", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([math], { rpcAuth: "signed", transport: "local-only" });
  assert.equal(await host.mesh.call("v1.math.echo", 1), 1);
});
