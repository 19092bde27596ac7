import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { MeshCallError, MeshError, MeshTimeoutError, MeshValidationError, action, service } from "@chimpbase/mesh";
import type { Context, Host, Meta } from "@chimpbase/mesh";
import { IsInt } from "class-validator";
import { until } from "../support/wait.js";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { post } from "../mesh/rpc-fixture.js";

const untilAborted = (signal: AbortSignal): Promise<never> => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
const portOf = (host: Host): { port: number } => ({ port: Number(new URL(host.url!).port) });
const token = "t0ken";
const AUTHS = ["token", "signed"] as const;
type RpcAuth = (typeof AUTHS)[number];

class Sum { @IsInt() a!: number; @IsInt() b!: number }
class OutOfStock extends Error {
  override readonly name = "OutOfStock";
  readonly code = "OUT_OF_STOCK";
  readonly data = { sku: "s1" };
}

const signals: AbortSignal[] = [];
const math = service({
  name: "math", version: 1,
  actions: {
    sum: { params: Sum, handler: async (_ctx: Context, { a, b }: Sum) => a + b },
    echo: async (_ctx: Context, args: unknown) => args,
    about: async (ctx: Context) => ({ caller: ctx.caller, meta: ctx.meta, level: ctx.level, requestId: ctx.requestId }),
    fail: async () => { throw new OutOfStock("none left"); },
    circular: async () => { const data: { data?: unknown } = {}; data.data = data; throw Object.assign(new Error("round"), { data }); },
    hang: async (ctx: Context) => { signals.push(ctx.signal); return untilAborted(ctx.signal); },
    back: async (ctx: Context, name: string) => ctx.mesh.call(name),
  },
});
const front = service({
  name: "front", version: 1,
  actions: {
    through: async (ctx: Context) => ctx.mesh.call("v1.math.about"),
    there: async (ctx: Context) => ctx.mesh.call("v1.math.back", "v1.front.leaf"),
    leaf: async (ctx: Context) => ({ node: ctx.mesh.nodeId(), level: ctx.level, from: ctx.caller }),
    around: async (ctx: Context) => ctx.mesh.call("v1.math.back", "v1.front.around"),
    nested: async (ctx: Context) => ctx.mesh.call("v1.math.hang"),
  },
});

async function pair(mesh: MeshFixture, rpcAuth: RpcAuth): Promise<[Host, Host]> {
  const [a, b] = await Promise.all([mesh.started([front], { rpcAuth, errors: [OutOfStock] }), mesh.started([math], { rpcAuth })]);
  await Promise.all([a.mesh.waitFor("v1.math"), b.mesh.waitFor("v1.front")]);
  return [a, b];
}

for (const rpcAuth of AUTHS) test(`calls, errors, deadlines and chains between two nodes (${rpcAuth})`, async (t) => {
  await using mesh = await MeshFixture.open();
  const [a, b] = await pair(mesh, rpcAuth);

  await t.test("arguments arrive as sent", async () => {
    for (const args of [[1], null, { a: [null] }, "x", 0, false]) assert.deepEqual(await a.mesh.call("v1.math.echo", args), args);
    assert.equal(await a.mesh.call("v1.math.echo"), null);
  });

  await t.test("the chain goes on: caller, meta, request, level", async () => {
    const about = await a.mesh.call<{ caller: unknown; meta: Meta; level: number }>("v1.front.through", {}, { meta: { tenant: 7 } });
    assert.deepEqual([about.caller, about.meta, about.level], [{ nodeId: a.nodeId, action: "v1.front.through" }, { tenant: 7 }, 2]);
  });

  await t.test("A calls B calls A", async () => {
    assert.deepEqual(await a.mesh.call("v1.front.there"), { node: a.nodeId, level: 3, from: { nodeId: b.nodeId, action: "v1.math.back" } });
  });

  await t.test("a circle is refused by its names", async () => {
    await assert.rejects(a.mesh.call("v1.front.around", {}, { timeoutMs: 60_000 }), (error) => error instanceof MeshError && error.code === "CALL_DEPTH" && /v1\.front\.around → v1\.math\.back/.test(error.message));
  });

  await t.test("validation runs over there, and reads the same here", async () => {
    assert.equal(await a.mesh.call("v1.math.sum", { a: 1, b: 2 }), 3);
    await assert.rejects(a.mesh.call("v1.math.sum", { a: "1", b: 2 }), (error) => error instanceof MeshValidationError && error.status === 422 && error.data[0]!.path === "a");
  });

  await t.test("errors are revived where their class is known, and read the same where not", async () => {
    const known = await a.mesh.call("v1.math.fail").catch((error: unknown) => error);
    assert.ok(known instanceof OutOfStock);
    const own = await b.mesh.call("v1.math.fail").catch((error: unknown) => error) as OutOfStock;
    for (const key of ["name", "message", "code", "data"] as const) assert.deepEqual(known[key], own[key]);
    await assert.rejects(a.mesh.call("v1.math.circular"), (error) => error instanceof MeshCallError && error.message === "round" && error.nodeId === b.nodeId);
  });

  await t.test("a deadline aborts the handler on the other node, two calls down", async () => {
    signals.length = 0;
    await assert.rejects(a.mesh.call("v1.front.nested", {}, { timeoutMs: 150 }), MeshTimeoutError);
    await until(() => signals[0]?.aborted);
  });
});

test("the RPC route of a host", async (t) => {
  await using mesh = await MeshFixture.open();
  const host = mesh.host([math]);
  host.register(action("internal", () => "secret"));
  await host.start();
  const node = portOf(host);

  await t.test("serves a node that knows the minimal form of request", async () => {
    const reply = await post(node, { actionName: "v1.math.sum", args: { a: 1, b: 2 }, callerNodeId: "x", deadlineMs: 1000 }, { token });
    assert.deepEqual([reply.status, reply.json], [200, { ok: true, result: 3 }]);
  });

  await t.test("reaches no host action", async () => {
    for (const actionName of ["internal", "__chimpbase.mesh.rpc.execute", "__chimpbase.mesh.gc"]) {
      assert.deepEqual([actionName, (await post(node, { actionName }, { token })).status], [actionName, 404]);
    }
  });

  await t.test("refuses as documented", async () => {
    assert.deepEqual([(await post(node, "{", { token })).text, (await post(node, "{}", { token: null })).text], ['{"ok":false,"error":"invalid json body"}', '{"ok":false,"error":"unauthorized mesh rpc"}']);
    assert.equal((await post(node, "", { method: "GET" })).status, 405);
    assert.equal((await post(node, "x".repeat(1024 ** 2 + 1), { token })).status, 413);
    assert.equal((await post(node, { actionName: "v1.math.sum", args: {} }, { token })).status, 422);
    assert.equal((await post(node, { actionName: "v1.math.hang" }, { token, headers: { "x-chimpbase-mesh-timeout": "300" } })).status, 408);
  });

  await t.test("stands where it was registered: other paths go on to others", async () => {
    assert.equal((await post(node, "{}", { path: "/other", token })).status, 404);
    assert.equal((await post(node, "", { path: "/livez", method: "GET", token: null })).status, 200);
  });
});

describe("a node that knows only the minimal form", () => {
  /** What a node of another make answers, and what it was asked. */
  async function foreign(answer: (body: Record<string, unknown>) => [number, object]): Promise<{ server: Server; asked: Record<string, unknown>[] }> {
    const asked: Record<string, unknown>[] = [];
    const server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk) => (text += chunk)).on("end", () => {
        asked.push(JSON.parse(text));
        const [status, reply] = answer(asked.at(-1)!);
        response.writeHead(status).end(JSON.stringify(reply));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { server, asked };
  }

  test("is called, and its errors are understood", async () => {
    await using mesh = await MeshFixture.open();
    const host = await mesh.started([front], { heartbeatMs: 200, offlineAfterMs: 60_000 });
    const { server, asked } = await foreign(({ actionName }) => actionName === "v1.old.ok" ? [200, { ok: true, result: { done: true } }] : [500, { ok: false, error: "old and broken" }]);
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const services = JSON.stringify([{ name: "old", version: 1, actions: ["v1.old.ok", "v1.old.bad"], events: [] }]);
    await mesh.query(`INSERT INTO _chimpbase_mesh_nodes (node_id, advertised_url, services_json, started_at_ms, last_heartbeat_ms)
      SELECT 'old-node', $1, $2, now_ms, now_ms FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms) AS t`, [url, services]);
    await host.mesh.waitFor("v1.old.ok", { timeoutMs: 15_000 });
    assert.deepEqual(await host.mesh.call("v1.old.ok", { q: 1 }), { done: true });
    assert.deepEqual([asked[0]!.actionName, asked[0]!.args, asked[0]!.callerNodeId, typeof asked[0]!.deadlineMs], ["v1.old.ok", { q: 1 }, host.nodeId, "number"]);
    await assert.rejects(host.mesh.call("v1.old.bad"), (error) => error instanceof MeshCallError && error.message === "old and broken" && error.code === "CALL_FAILED");
    server.closeAllConnections();
    server.close();
  });
});

for (const rpcAuth of AUTHS) test(`rolling restart: calls without retries do not fail while a node stops (${rpcAuth})`, async () => {
  await using mesh = await MeshFixture.open();
  const caller = await mesh.started([front], { rpcAuth });
  const [first] = await Promise.all([mesh.started([math], { rpcAuth }), mesh.started([math], { rpcAuth })]);
  await until(() => caller.mesh.peers().length === 2);
  let running = true;
  let calls = 0;
  const failures: unknown[] = [];
  const load = Array.from({ length: 8 }, async () => {
    while (running) await caller.mesh.call("v1.math.echo", calls++).catch((error: unknown) => failures.push(error));
  });
  await until(() => calls > 50);
  await first.stop();
  const stoppedAt = calls;
  await until(() => calls > stoppedAt + 50);
  running = false;
  await Promise.all(load);
  assert.deepEqual(failures, []);
});
