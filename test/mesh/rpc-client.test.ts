import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { MeshActionNotFoundError, MeshCallError, MeshCancelledError, MeshError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshUnauthorizedError, MeshValidationError } from "@chimpbase/mesh";
import type { TestContext as Ctx } from "./call-fixture.js";
import { until } from "../support/wait.js";
import { PATH, RpcNode, TOKEN, type NodeOptions } from "./rpc-fixture.js";

const never = (): Promise<never> => new Promise(() => undefined);

async function nodes(t: TestContext, ...options: NodeOptions[]): Promise<RpcNode[]> {
  const started = await Promise.all(options.map((each) => RpcNode.start(each)));
  t.after(() => Promise.all(started.map((node) => node.close())));
  for (const node of started) {
    const others = started.filter((other) => other !== node);
    node.knows(...others.map((other) => other.address));
    for (const other of others) if (other.wire && other.accepts(node)) await node.wireTo(other);
  }
  return started;
}

/** A peer that is no mesh node, or a strange one. */
async function strangePeer(t: TestContext, server: Server): Promise<{ readonly nodeId: string; readonly advertisedUrl: string; readonly rpcPath: string; readonly cpuLoad: number }> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => { sockets.add(socket); socket.on("error", () => undefined); });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => { for (const socket of sockets) socket.destroy(); server.close(); });
  return { nodeId: "strange", advertisedUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, rpcPath: PATH, cpuLoad: 0 };
}

/** Also those connections that were open have been seen to close. */
async function cut(node: RpcNode): Promise<void> {
  node.cut();
  await sleep(20);
}

async function answering(t: TestContext, listener: RequestListener): Promise<RpcNode> {
  const [node] = await nodes(t, { nodeId: "a" }) as [RpcNode];
  return node.knows(await strangePeer(t, createServer(listener)));
}

describe("a call to a peer", () => {
  test("gives the result, and the callee knows who called", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    b.actions.add("v1.b.who", (ctx, args) => ({ args, caller: ctx.caller, level: ctx.level, meta: ctx.meta, requestId: ctx.requestId }));
    a.actions.add("v1.a.relay", (ctx: Ctx, args) => ctx.call("v1.b.who", args));
    assert.deepEqual(await a.call("v1.a.relay", [1], { meta: { m: 1 } }, { requestId: "r" }), {
      args: [1], caller: { nodeId: "a", action: "v1.a.relay" }, level: 2, meta: { m: 1 }, requestId: "r",
    });
  });

  test("that calls back works: A to B to A", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    a.actions.add("v1.a.leaf", (ctx) => [ctx.level, ctx.caller?.nodeId]);
    b.actions.add("v1.b.middle", (ctx: Ctx) => ctx.call("v1.a.leaf"));
    a.actions.add("v1.a.root", (ctx: Ctx) => ctx.call("v1.b.middle"));
    assert.deepEqual(await a.call("v1.a.root"), [3, "b"]);
  });

  test("is refused at a depth of 100 across nodes", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    a.actions.add("v1.a.ping", (ctx: Ctx) => ctx.call("v1.b.pong"));
    b.actions.add("v1.b.pong", (ctx: Ctx) => ctx.call("v1.a.ping"));
    await assert.rejects(a.call("v1.a.ping"), (error) => error instanceof MeshError && error.code === "CALL_DEPTH" && /ping → v1\.b\.pong/.test(error.message));
  });

  test("passes what remains of the budget on, less than there was", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    b.actions.add("v1.b.left", (ctx) => ctx.deadline);
    const left = await a.call("v1.b.left", {}, { timeoutMs: 1000 }) as number;
    assert.ok(left > 0 && left <= 1000, String(left));
  });

  test("aborts the handler over there at the deadline, and on cancellation", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    const signals: AbortSignal[] = [];
    b.actions.add("v1.b.hang", (ctx) => { signals.push(ctx.signal); return never(); });
    await assert.rejects(a.call("v1.b.hang", {}, { timeoutMs: 100 }), (error) => error instanceof MeshTimeoutError && error.message === "mesh call timed out after 100ms: v1.b.hang");
    await until(() => signals[0]?.aborted);
    const controller = new AbortController();
    const pending = a.call("v1.b.hang", {}, { signal: controller.signal });
    await until(() => signals.length === 2);
    controller.abort();
    await assert.rejects(pending, MeshCancelledError);
    await until(() => signals[1]!.aborted);
  });

  test("carries a trace in meta as a header too", async (t) => {
    const traceparent = `00-${"1".repeat(32)}-${"2".repeat(16)}-00`;
    const headers: unknown[] = [];
    const a = await answering(t, (request, response) => { headers.push(request.headers.traceparent); response.end('{"ok":true,"result":1}'); });
    await a.call("v1.x.y", {}, { meta: { traceparent } });
    await a.call("v1.x.y", {}, { meta: { traceparent: "nonsense\r\nx: y" } });
    assert.deepEqual(headers, [traceparent, undefined]);
  });

  test("sends what the contract says", async (t) => {
    let seen: { headers: Record<string, unknown>; body: Record<string, unknown>; url: string | undefined } | undefined;
    const a = await answering(t, (request, response) => {
      let text = "";
      request.on("data", (chunk) => (text += chunk)).on("end", () => {
        seen = { headers: request.headers, body: JSON.parse(text), url: request.url };
        response.end('{"ok":true}');
      });
    });
    assert.equal(await a.call("v1.x.y", { a: 1 }, { timeoutMs: 800 }, { requestId: "r" }), null);
    const { headers, body, url } = seen!;
    assert.equal(url, PATH);
    assert.equal(headers["content-type"], "application/json");
    assert.equal(headers["x-chimpbase-mesh-token"], TOKEN);
    assert.equal(headers["x-chimpbase-mesh-caller"], "a");
    const ms = Number(headers["x-chimpbase-mesh-timeout"]);
    assert.ok(Number.isInteger(ms) && ms > 0 && ms <= 800);
    const { deadlineMs, ...rest } = body;
    assert.ok(Number.isInteger(deadlineMs) && (deadlineMs as number) > 0 && (deadlineMs as number) <= 800);
    assert.deepEqual(rest, { actionName: "v1.x.y", args: { a: 1 }, callerNodeId: "a", requestId: "r", level: 1 });
  });

  test("keeps what arguments cannot be sent to itself", async (t) => {
    const a = await answering(t, (_request, response) => response.end("{}"));
    await assert.rejects(a.call("v1.x.y", { n: 1n }), { code: "ARGS_NOT_SERIALIZABLE", retryable: false });
    await assert.rejects(a.call("v1.x.y", "ä".repeat(600_000)), (error) => error instanceof MeshPayloadTooLargeError);
    assert.deepEqual(a.suspected, []);
  });

  test("without a token to send fails with a reason", async (t) => {
    const [a] = await nodes(t, { nodeId: "a", tokens: [] }, { nodeId: "b" }) as [RpcNode];
    await assert.rejects(a.call("v1.b.x"), MeshUnauthorizedError);
  });

  test("with a token that no header can hold fails, and does not hang", async (t) => {
    const [a] = await nodes(t, { nodeId: "a", tokens: ["two\nlines"] }, { nodeId: "b" }) as [RpcNode];
    await assert.rejects(a.call("v1.b.x"), MeshCallError);
  });

  test("with another token than the peer's is unauthorized", async (t) => {
    const [a] = await nodes(t, { nodeId: "a", tokens: ["other"] }, { nodeId: "b" }) as [RpcNode];
    await assert.rejects(a.call("v1.b.x"), { name: "MeshUnauthorizedError", code: "UNAUTHORIZED", status: 401, retryable: false, message: "unauthorized mesh rpc" });
  });
});

describe("an error of a remote handler", () => {
  class OutOfStock extends Error {
    override readonly name = "OutOfStock";
    readonly code = "OUT_OF_STOCK";
    constructor(readonly data: { sku: string }) { super(`no ${data.sku} left`); }
  }
  class Unnamed extends Error {}

  const thrown = async (t: TestContext, error: unknown, options: NodeOptions = {}): Promise<unknown> => {
    const [a, b] = await nodes(t, { nodeId: "a", ...options }, { nodeId: "b" }) as [RpcNode, RpcNode];
    b.actions.add("v1.b.throw", () => { throw error; });
    return a.call("v1.b.throw").then(() => assert.fail("did not reject"), (caught: unknown) => caught);
  };

  test("reads the same, though its class is not known here", async (t) => {
    const error = await thrown(t, new OutOfStock({ sku: "s1" })) as MeshCallError;
    assert.ok(error instanceof MeshCallError && error instanceof Error);
    const { name, message, code, data, nodeId, retryable } = error;
    assert.deepEqual({ name, message, code, data, nodeId, retryable }, { name: "OutOfStock", message: "no s1 left", code: "OUT_OF_STOCK", data: { sku: "s1" }, nodeId: "b", retryable: true });
  });

  test("is revived as its class where that is listed, without running its constructor", async (t) => {
    const error = await thrown(t, new OutOfStock({ sku: "s1" }), { errors: [OutOfStock] });
    assert.ok(error instanceof OutOfStock);
    assert.deepEqual([error.name, error.message, error.code, error.data], ["OutOfStock", "no s1 left", "OUT_OF_STOCK", { sku: "s1" }]);
  });

  test("is revived by the name of its class where it never set a name of its own", async (t) => {
    const error = await thrown(t, new Unnamed("plain"), { errors: [Unnamed] });
    assert.ok(error instanceof Unnamed);
    assert.equal(error.name, "Error");
  });

  test("of the mesh keeps its class and fields", async (t) => {
    const error = await thrown(t, new MeshValidationError("bad", [{ path: "a.0", message: "m", constraint: "c" }]));
    assert.ok(error instanceof MeshValidationError && !(error instanceof MeshTimeoutError));
    assert.deepEqual([error.code, error.status, error.retryable, error.data, error.message], ["VALIDATION_FAILED", 422, false, [{ path: "a.0", message: "m", constraint: "c" }], "bad"]);
  });

  test("keeps its name across two nodes", async (t) => {
    const [a, b, c] = await nodes(t, { nodeId: "a", errors: [OutOfStock] }, { nodeId: "b" }, { nodeId: "c" }) as [RpcNode, RpcNode, RpcNode];
    c.actions.add("v1.c.throw", () => { throw new OutOfStock({ sku: "s" }); });
    b.actions.add("v1.b.relay", (ctx: Ctx) => ctx.call("v1.c.throw", {}, { nodeId: "c" }));
    const error = await a.call("v1.b.relay", {}, { nodeId: "b" }).catch((caught: unknown) => caught);
    assert.ok(error instanceof OutOfStock);
    assert.equal((error as Error & { nodeId?: string }).nodeId, "c");
  });

  test("that cannot be serialised answers at once and harms nobody", async (t) => {
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    const error = await thrown(t, Object.assign(new Error("round"), { code: "ROUND", data: circular })) as MeshCallError;
    assert.deepEqual([error.message, error.code, error.data], ["round", "ROUND", undefined]);
  });

  test("may be a string, or nothing at all", async (t) => {
    assert.equal((await thrown(t, "just text") as Error).message, "just text");
    assert.ok(await thrown(t, undefined) instanceof MeshError);
  });
});

describe("a peer that", () => {
  const junk: readonly [string, RequestListener, RegExp][] = [
    ["answers HTML with 502", (_q, s) => s.writeHead(502, { "content-type": "text/html" }).end(`<html>${"x".repeat(5000)}`), /^mesh peer answered 502 .{0,60}no mesh answer: "<html>x{100,}…"$/],
    ["answers broken JSON", (_q, s) => s.end('{"ok":true'), /no mesh answer/],
    ["answers with ok: yes", (_q, s) => s.end('{"ok":"yes","result":1}'), /no mesh answer/],
    ["answers with an array", (_q, s) => s.end("[1]"), /no mesh answer/],
    ["answers nothing", (_q, s) => s.end(), /no mesh answer/],
    ["answers ok with an error's status", (_q, s) => s.writeHead(500).end('{"ok":true,"result":1}'), /no mesh answer/],
    ["sends somewhere else", (_q, s) => s.writeHead(302, { location: "http://127.0.0.1:1/" }).end(), /answered 302/],
    ["sends somewhere else with a mesh answer", (_q, s) => s.writeHead(307, { location: "/x" }).end('{"ok":true,"result":1}'), /answered 307/],
    ["drops the connection", (q) => q.socket.destroy(), /dropped the connection/],
    ["drops it within the answer", (_q, s) => { s.writeHead(200, { "content-length": "100" }); s.write("{"); setTimeout(() => s.destroy(), 5); }, /dropped the connection/],
  ];
  for (const [what, listener, message] of junk) {
    test(`${what} is a MeshCallError`, async (t) => {
      const a = await answering(t, listener);
      await assert.rejects(a.call("v1.x.y"), (error) => error instanceof MeshCallError && error.code === "CALL_FAILED" && error.retryable && message.test(error.message));
    });
  }

  test("never gets the token of a redirect's target", async (t) => {
    let reached = 0;
    const target = await strangePeer(t, createServer((_q, s) => { reached++; s.end('{"ok":true,"result":1}'); }));
    const a = await answering(t, (_q, s) => s.writeHead(307, { location: `${target.advertisedUrl}/` }).end());
    await assert.rejects(a.call("v1.x.y"), MeshCallError);
    assert.equal(reached, 0);
  });

  test("answers garbage bytes is a MeshCallError", async (t) => {
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    a.knows(await strangePeer(t, createTcpServer((socket) => socket.on("data", () => socket.end("SSH-2.0-x\r\n")))));
    await assert.rejects(a.call("v1.x.y"), MeshCallError);
  });

  test("knows only status and message is understood by its status", async (t) => {
    const answers: readonly [number, string, new (...args: never[]) => Error, boolean][] = [
      [401, "unauthorized mesh rpc", MeshUnauthorizedError, false],
      [404, "mesh action not found: v1.x.y", MeshActionNotFoundError, false],
      [408, "late", MeshTimeoutError, true],
      [422, "wrong", MeshValidationError, false],
      [503, "busy", MeshOverloadedError, true],
      [500, "broken", MeshCallError, true],
      [400, "invalid json body", MeshCallError, false],
    ];
    let next = 0;
    const a = await answering(t, (_q, s) => { const [status, error] = answers[next++]!; s.writeHead(status).end(JSON.stringify({ ok: false, error })); });
    for (const [status, message, type, retryable] of answers) {
      const error = await a.call("v1.x.y").catch((caught: unknown) => caught) as MeshError;
      assert.ok(error instanceof type, `${status}: ${error.name}`);
      assert.deepEqual([error.message, error.status, error.retryable], [message, status, retryable]);
    }
  });

  test("answers too much is cut off", async (t) => {
    const [a] = await nodes(t, { nodeId: "a", client: { maxAnswerBytes: 1000 } }) as [RpcNode];
    a.knows(await strangePeer(t, createServer((_q, s) => { s.write("x".repeat(2000)); })));
    await assert.rejects(a.call("v1.x.y"), MeshPayloadTooLargeError);
  });

  test("refuses connections is suspected, and another is asked at once", async (t) => {
    const [a, b, c] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }, { nodeId: "c" }) as [RpcNode, RpcNode, RpcNode];
    c.actions.add("v1.s.x", () => "from c");
    await cut(b);
    for (let n = 0; n < 4; n++) assert.equal(await a.call("v1.s.x"), "from c");
    assert.ok(a.suspected.length <= 1);
    assert.ok(a.suspected.every((id) => id === "b"));
  });

  test("refuses, alone, is a call that failed and may be tried again", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    await cut(b);
    await assert.rejects(a.call("v1.s.x"), (error) => error instanceof MeshCallError && error.code === "CALL_FAILED" && error.status === 502 && error.retryable && error.nodeId === "b" && /cannot be reached/.test(error.message) && error.cause instanceof Error);
  });

  test("is killed fails the calls under way at once", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    let running = 0;
    b.actions.add("v1.b.hang", () => { running++; return never(); });
    const pending = Array.from({ length: 5 }, () => a.call("v1.b.hang").catch((error: unknown) => error));
    await until(() => running === 5);
    b.cut();
    for (const error of await Promise.all(pending)) assert.ok(error instanceof MeshCallError && error.retryable);
    assert.ok(a.suspected.includes("b"));
  });

  test("drains sends its calls elsewhere without an attempt being lost, and is not asked again", async (t) => {
    const [a, b, c] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }, { nodeId: "c" }) as [RpcNode, RpcNode, RpcNode];
    for (const [node, name] of [[b, "b"], [c, "c"]] as const) node.actions.add("v1.s.x", () => name);
    b.draining = true;
    for (let n = 0; n < 4; n++) assert.equal(await a.call("v1.s.x"), "c");
    assert.deepEqual(a.suspected, ["b"]);
  });

  test("no longer has the action sends the call to one that has", async (t) => {
    const [a, , c] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }, { nodeId: "c" }) as [RpcNode, RpcNode, RpcNode];
    c.actions.add("v1.s.x", () => "c");
    for (let n = 0; n < 4; n++) assert.equal(await a.call("v1.s.x"), "c");
    await assert.rejects(a.call("v1.s.none"), MeshActionNotFoundError);
  });

  test("freezes is suspected after one timeout, and a retry lands elsewhere in time", async (t) => {
    const [a, c] = await nodes(t, { nodeId: "a" }, { nodeId: "c" }) as [RpcNode, RpcNode];
    c.actions.add("v1.s.x", () => "c");
    a.knows(await strangePeer(t, createTcpServer(() => undefined)));
    const results = await Promise.all(Array.from({ length: 4 }, () => a.call("v1.s.x", {}, { timeoutMs: 600, retry: { attempts: 1, delayMs: 1 } })));
    assert.deepEqual(results, ["c", "c", "c", "c"]);
    assert.ok(a.suspected.includes("strange") && !a.suspected.includes("c"));
  });

  test("is slow with one call, but answers others, is not suspected", async (t) => {
    const [a, b] = await nodes(t, { nodeId: "a" }, { nodeId: "b" }) as [RpcNode, RpcNode];
    b.actions.add("v1.b.hang", never).add("v1.b.quick", () => 1);
    const slow = a.call("v1.b.hang", {}, { timeoutMs: 150 }).catch((error: unknown) => error);
    await a.call("v1.b.quick");
    assert.ok(await slow instanceof MeshTimeoutError);
    assert.deepEqual(a.suspected, []);
  });

  test("advertises no address is suspected, and nothing is sent anywhere", async (t) => {
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    for (const bad of [{ advertisedUrl: "ftp://x" }, { advertisedUrl: "" }, { advertisedUrl: "http://a", rpcPath: "@evil.example/" }]) {
      a.knows({ nodeId: `bad${a.suspected.length}`, rpcPath: PATH, cpuLoad: 0, ...bad });
      await assert.rejects(a.call("v1.x.y"), MeshCallError);
    }
    assert.ok(a.suspected.length >= 3);
  });
});

describe("connections to a peer", () => {
  test("are kept, bounded, and their queue too", async (t) => {
    let connections = 0;
    let open = 0;
    const server = createServer((_q, s) => { open++; setTimeout(() => { open--; s.end('{"ok":true,"result":1}'); }, 20); });
    server.on("connection", () => connections++);
    const [a] = await nodes(t, { nodeId: "a", client: { connections: 2, maxPending: 6 } }) as [RpcNode];
    a.knows(await strangePeer(t, server));
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => a.call("v1.x.y")));
    const refused = results.filter((result) => result.status === "rejected").map((result) => result.reason as MeshError);
    assert.deepEqual(refused.map((error) => error instanceof MeshOverloadedError && error.retryable), [true, true]);
    assert.equal(await a.call("v1.x.y"), 1);
    assert.equal(connections, 2);
    assert.equal(open, 0);
  });

  test("close when the peer goes, after what is under way", async (t) => {
    let release: (() => void) | undefined;
    let closed = 0;
    const server = createServer((_q, s) => { release = () => s.end('{"ok":true,"result":1}'); });
    server.on("connection", (socket) => socket.on("close", () => closed++));
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    a.knows(await strangePeer(t, server));
    const pending = a.call("v1.x.y");
    await until(() => release);
    a.transport.drop("strange");
    release!();
    assert.equal(await pending, 1);
    await until(() => closed === 1);
  });

  test("of a peer that is gone close with the node too", async (t) => {
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    let asked = 0;
    a.knows(await strangePeer(t, createServer(() => asked++)));
    const pending = a.call("v1.x.y").catch((error: unknown) => error);
    await until(() => asked === 1);
    a.transport.drop("strange");
    await a.transport.close();
    assert.ok(await pending instanceof MeshCallError);
  });

  test("close with the node, and what is under way fails", async (t) => {
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    let asked = 0;
    a.knows(await strangePeer(t, createServer(() => asked++)));
    const pending = a.call("v1.x.y").catch((error: unknown) => error);
    await until(() => asked === 1);
    await a.transport.close();
    assert.ok(await pending instanceof MeshCallError);
  });

  test("are not made any more once the node has closed, whatever would be tried again", async (t) => {
    let requests = 0;
    const server = createServer((request) => { requests++; request.socket.destroy(); });
    const [a] = await nodes(t, { nodeId: "a", client: { connections: 1 } }) as [RpcNode];
    a.knows(await strangePeer(t, server));
    await assert.rejects(a.call("v1.x.y"), { code: "CALL_FAILED" });
    await a.transport.close();
    await assert.rejects(a.call("v1.x.y", {}, { retry: { attempts: 3, delayMs: 1 } }), { code: "MESH_NOT_RUNNING" });
    assert.equal(requests, 1);
  });

  test("are made anew where the peer's address has changed", async (t) => {
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    const first = await strangePeer(t, createServer((_q, s) => s.end('{"ok":true,"result":"first"}')));
    const second = await strangePeer(t, createServer((_q, s) => s.end('{"ok":true,"result":"second"}')));
    a.knows(first);
    assert.equal(await a.call("v1.x.y"), "first");
    a.forgets("strange").knows(second);
    assert.equal(await a.call("v1.x.y"), "second");
  });
});

describe("a peer with too much to do", () => {
  const refusal = (draining?: true) => JSON.stringify({ ok: false, error: "busy", name: "MeshOverloadedError", code: "OVERLOADED", undelivered: true, draining });

  test("sends its calls elsewhere without an attempt being lost, and stays in use", async (t) => {
    const [a, b, c] = await nodes(t, { nodeId: "a" }, { nodeId: "b", server: { maxInFlight: 1 } }, { nodeId: "c" }) as [RpcNode, RpcNode, RpcNode];
    let release: (() => void) | undefined;
    b.actions.add("v1.b.hang", () => new Promise<void>((resolve) => (release = resolve)));
    for (const [node, name] of [[b, "b"], [c, "c"]] as const) node.actions.add("v1.s.x", () => name);
    const busy = a.call("v1.b.hang", {}, { nodeId: "b" });
    await until(() => release);
    for (let n = 0; n < 4; n++) assert.equal(await a.call("v1.s.x"), "c");
    assert.deepEqual(a.suspected, []);
    release!();
    await busy;
    const served = [await a.call("v1.s.x"), await a.call("v1.s.x")];
    assert.ok(served.includes("b"), served.join());
  });

  test("fails a call where all others have too much to do as well: each is asked once an attempt", async (t) => {
    const [a] = await nodes(t, { nodeId: "a" }) as [RpcNode];
    const asked: string[] = [];
    for (const nodeId of ["x", "y", "z"]) a.knows({ ...(await strangePeer(t, createServer((_q, s) => { asked.push(nodeId); s.writeHead(503).end(refusal()); }))), nodeId });
    await assert.rejects(a.call("v1.s.x"), (error) => error instanceof MeshOverloadedError && error.retryable);
    assert.deepEqual(asked.sort(), ["x", "y", "z"]);
    await assert.rejects(a.call("v1.s.x", {}, { retry: { attempts: 1, delayMs: 1 } }), MeshOverloadedError);
    assert.ok(asked.length <= 9, asked.join());
    assert.deepEqual(a.suspected, []);
  });

  test("is told apart from one that drains", async (t) => {
    const a = await answering(t, (_q, s) => s.writeHead(503).end(refusal(true)));
    await assert.rejects(a.call("v1.s.x"), MeshOverloadedError);
    assert.deepEqual(a.suspected, ["strange"]);
  });

  test("gets no more than its queue holds; the rest goes to others", async (t) => {
    const [a, b, c] = await nodes(t, { nodeId: "a", client: { connections: 1, maxPending: 1 } }, { nodeId: "b" }, { nodeId: "c" }) as [RpcNode, RpcNode, RpcNode];
    let release: (() => void) | undefined;
    b.actions.add("v1.b.hang", () => new Promise<void>((resolve) => (release = resolve))).add("v1.s.x", () => "b");
    c.actions.add("v1.s.x", () => "c");
    const busy = a.call("v1.b.hang", {}, { nodeId: "b" });
    await until(() => release);
    for (let n = 0; n < 4; n++) assert.equal(await a.call("v1.s.x"), "c");
    await assert.rejects(a.call("v1.s.x", {}, { nodeId: "b" }), (error) => error instanceof MeshOverloadedError && error.nodeId === "b");
    release!();
    await busy;
  });

  test("gets no request that would lose half of its time in the queue, once its pace is known", async (t) => {
    let answered = 0;
    const server = createServer((_q, s) => { setTimeout(() => { answered++; s.end('{"ok":true,"result":1}'); }, 20); });
    const [a] = await nodes(t, { nodeId: "a", client: { connections: 1 } }) as [RpcNode];
    a.knows(await strangePeer(t, server));
    const jam = Array.from({ length: 60 }, () => a.call("v1.x.y", {}, { timeoutMs: 60_000 }));
    await until(() => answered === 10);
    const asked = performance.now();
    await assert.rejects(a.call("v1.x.y", {}, { timeoutMs: 1_000 }), (error) => error instanceof MeshOverloadedError && /would wait \d+ms/.test(error.message));
    assert.ok(performance.now() - asked < 200);
    assert.equal(await a.call("v1.x.y", {}, { timeoutMs: 60_000 }), 1);
    assert.deepEqual(await Promise.all(jam), jam.map(() => 1));
    assert.equal(await a.call("v1.x.y", {}, { timeoutMs: 1_000 }), 1);
  });

  test("gets no request that was taken back while it waited, and is told what remains when it is sent", async (t) => {
    const seen: { args: unknown; ms: number }[] = [];
    let release: (() => void) | undefined;
    const server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk) => (text += chunk)).on("end", () => {
        seen.push({ args: (JSON.parse(text) as { args: unknown }).args, ms: Number(request.headers["x-chimpbase-mesh-timeout"]) });
        const answer = (): unknown => response.end('{"ok":true,"result":1}');
        if (seen.length === 1) release = answer;
        else answer();
      });
    });
    const [a] = await nodes(t, { nodeId: "a", client: { connections: 1 } }) as [RpcNode];
    a.knows(await strangePeer(t, server));
    const first = a.call("v1.x.y", 1);
    await until(() => release);
    const controller = new AbortController();
    const takenBack = a.call("v1.x.y", 2, { signal: controller.signal });
    const late = a.call("v1.x.y", 3, { timeoutMs: 30 });
    const queued = performance.now();
    const third = a.call("v1.x.y", 4, { timeoutMs: 10_000 });
    controller.abort();
    await assert.rejects(takenBack, MeshCancelledError);
    await assert.rejects(late, MeshTimeoutError);
    const waited = performance.now() - queued;
    release!();
    await Promise.all([first, third]);
    assert.deepEqual(seen.map(({ args }) => args), [1, 4]);
    assert.ok(seen[1]!.ms <= 10_000 - Math.floor(waited), `${seen[1]!.ms} ms told after ${waited} ms`);
  });
});
