import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MeshError } from "@chimpbase/mesh";
import type { HostEnv, ScopedContext } from "#mesh/contract/registration.js";
import { EXECUTE_ACTION } from "#mesh/mesh/rpc-desk.js";
import { until } from "../support/wait.js";
import { RawWire, upgradeRequest, type Shown } from "./raw-wire.js";
import { PATH, RpcNode, TOKEN, type NodeOptions } from "./rpc-fixture.js";

const never = (): Promise<never> => new Promise(() => undefined);

async function nodeFor(t: TestContext, options: NodeOptions = {}): Promise<RpcNode> {
  const node = await RpcNode.start({ nodeId: "callee", wire: true, ...options });
  t.after(() => node.close());
  node.actions.add("v1.t.echo", (_ctx, args) => args);
  return node;
}

async function wireFor(t: TestContext, options: NodeOptions = {}, shown: Shown = {}): Promise<{ readonly node: RpcNode; readonly wire: RawWire }> {
  const node = await nodeFor(t, options);
  const wire = await RawWire.to(node, shown);
  t.after(() => wire.destroy());
  return { node, wire };
}

/** The answer to an upgrade that is refused. */
async function refused(t: TestContext, node: RpcNode, shown: Shown): Promise<{ readonly status: string; readonly json: Record<string, unknown> }> {
  const wire = new RawWire(node).send(upgradeRequest(shown));
  t.after(() => wire.destroy());
  await until(() => wire.closed);
  const [head = "", body = "{}"] = wire.received.split("\r\n\r\n");
  return { status: head.slice(9, 12), json: JSON.parse(body) as Record<string, unknown> };
}

test("a wire is refused without a token that the node takes, and warns of it as of a POST", async (t) => {
  const node = await nodeFor(t);
  for (const token of [null, "", "wrong", `${TOKEN}x`]) {
    assert.deepEqual(await refused(t, node, { token }), { status: "401", json: { ok: false, error: "unauthorized mesh rpc" } });
  }
  assert.equal(node.logs.filter((line) => line.includes("mesh rpc refused")).length, 1);
});

test("a wire is refused with a signature, and by a node that takes signed requests only", async (t) => {
  const more = "x-chimpbase-mesh-signature: v1;key=0000000000000000;ts=1;nonce=1;target=callee;body=0;sig=0\r\n";
  assert.equal((await refused(t, await nodeFor(t), { more })).status, "401");
  assert.equal((await refused(t, await nodeFor(t, { rpcAuth: "signed" }), {})).status, "401");
});

test("a wire that is meant for another node is answered 421, with where this one is reached", async (t) => {
  const node = await nodeFor(t);
  const { status, json } = await refused(t, node, { target: "predecessor" });
  assert.deepEqual([status, json.code, json.undelivered, json.data], ["421", "WRONG_NODE", true, { advertisedUrl: node.address.advertisedUrl }]);
  (await RawWire.to(node, { target: "callee" })).destroy();
});

test("a socket that has closed while others looked at its request becomes no wire", async (t) => {
  const node = await nodeFor(t);
  const socket = new Socket().destroy();
  node.server.upgrade({ url: PATH, headers: { "x-chimpbase-mesh-token": TOKEN } } as unknown as IncomingMessage, socket, Buffer.alloc(0), {} as HostEnv);
  assert.deepEqual([socket.listenerCount("data"), socket.listenerCount("error")], [0, 0]);
});

test("a draining node refuses a wire, and on a wire that stands each request", async (t) => {
  const { node, wire } = await wireFor(t);
  node.draining = true;
  const { status, json } = await refused(t, node, {});
  assert.deepEqual([status, json.undelivered, json.draining], ["503", true, true]);
  const answer = await wire.request(1, "v1.t.echo").answer(1);
  assert.deepEqual([answer.status, answer.json.code, answer.json.undelivered, answer.json.draining], [503, "OVERLOADED", true, true]);
});

test("a request on a wire is answered as by POST, through the same host action", async (t) => {
  const { node, wire } = await wireFor(t);
  let seen: ScopedContext | undefined;
  node.actions.add("v1.t.seen", (ctx) => void (seen = ctx));
  wire.request(1, "v1.t.echo", [1, { a: null }]).request(2, "v1.t.seen").request(3, "v1.t.missing").send('R4 5000 {"no":"action"}\nR5 5000 nonsense\nR6 0 {"actionName":"v1.t.echo"}\n');
  assert.deepEqual((await wire.answer(1)), { id: 1, status: 200, json: { ok: true, result: [1, { a: null }] } });
  assert.deepEqual((await wire.answer(2)).json, { ok: true, result: null });
  assert.deepEqual([seen!.caller, seen!.level], [{ nodeId: "raw", action: null }, 1]);
  const missing = await wire.answer(3);
  assert.deepEqual([missing.status, missing.json.code, missing.json.undelivered], [404, "ACTION_NOT_FOUND", true]);
  for (const id of [4, 5]) assert.deepEqual(await wire.answer(id), { id, status: 400, json: { ok: false, error: "invalid json body" } });
  assert.equal((await wire.answer(6)).status, 408);
  assert.deepEqual(new Set(node.executed), new Set([EXECUTE_ACTION]));
});

test("the deadline of a request counts from when it came", async (t) => {
  const { node, wire } = await wireFor(t);
  node.actions.add("v1.t.left", (ctx) => ctx.deadline).add("v1.t.hang", never);
  const left = (await wire.request(1, "v1.t.left", {}, 300).answer(1)).json.result as number;
  assert.ok(left > 200 && left <= 300, String(left));
  const answer = await wire.request(2, "v1.t.hang", {}, 50).answer(2);
  assert.deepEqual([answer.status, answer.json.code], [408, "TIMEOUT"]);
});

test("answers come as they are ready, in any order", async (t) => {
  const { node, wire } = await wireFor(t);
  let release: ((value: string) => void) | undefined;
  node.actions.add("v1.t.wait", () => new Promise((resolve) => (release = resolve)));
  wire.request(1, "v1.t.wait").request(2, "v1.t.echo", "fast");
  await wire.answer(2);
  assert.deepEqual(wire.answers.map(({ id }) => id), [2]);
  release!("slow");
  assert.equal((await wire.answer(1)).json.result, "slow");
});

test("what comes with the upgrade is read, and characters that are cut in two are whole again", async (t) => {
  const node = await nodeFor(t);
  const wire = new RawWire(node);
  t.after(() => wire.destroy());
  const text = "a€𝄞ä\u2028";
  wire.send(`${upgradeRequest()}R1 5000 ${JSON.stringify({ actionName: "v1.t.echo", args: "first" })}\n`);
  assert.equal((await wire.answer(1)).json.result, "first");
  for (const byte of Buffer.from(`R2 5000 ${JSON.stringify({ actionName: "v1.t.echo", args: text })}\nR3 5000 ${JSON.stringify({ actionName: "v1.t.echo", args: text })}\n`)) {
    wire.send(Buffer.from([byte]));
    await new Promise(setImmediate);
  }
  assert.equal((await wire.answer(2)).json.result, text);
  assert.equal((await wire.answer(3)).json.result, text);
});

test("a cancelled request aborts its handler and gets no answer; the others go on", async (t) => {
  const { node, wire } = await wireFor(t);
  let signal: AbortSignal | undefined;
  node.actions.add("v1.t.hang", (ctx) => { signal = ctx.signal; return never(); });
  wire.request(1, "v1.t.hang");
  await until(() => signal);
  wire.send("C1\nC1\nC99\n").request(2, "v1.t.echo", 2);
  await wire.answer(2);
  await until(() => signal!.aborted);
  assert.equal((signal!.reason as MeshError).code, "CANCELLED");
  await wire.request(3, "v1.t.echo", 3).answer(3);
  assert.deepEqual(wire.answers.map(({ id }) => id), [2, 3]);
});

for (const [how, leave] of [["is gone", (wire: RawWire) => wire.destroy()], ["sends no more", (wire: RawWire) => wire.socket.end()]] as const) {
  test(`a caller that ${how} has its handlers aborted`, async (t) => {
    const { node, wire } = await wireFor(t);
    const signals: AbortSignal[] = [];
    node.actions.add("v1.t.hang", (ctx) => { signals.push(ctx.signal); return never(); });
    wire.request(1, "v1.t.hang").request(2, "v1.t.hang");
    await until(() => signals.length === 2);
    leave(wire);
    await until(() => signals.every(({ aborted }) => aborted));
    assert.equal((signals[0]!.reason as MeshError).message, "the caller has gone");
    await until(() => node.wires.size === 0 && node.wheel.size === 0);
  });
}

test("a ping is answered while handlers run", async (t) => {
  const { node, wire } = await wireFor(t);
  node.actions.add("v1.t.hang", never);
  wire.request(1, "v1.t.hang").send("P\n");
  await until(() => wire.lines.includes("P"));
});

test("a line that is none closes the wire, and says up to where requests were taken", async (t) => {
  for (const line of ["", "x", "R", "R1", "R1 x", "R1 5 ", "r2 5000 {}", "R-1 5000 {}", "R2  5000 {}", "R2 5000{}", "R1e3 5 {}", "C", "Cx", "C1 ", "PP", "A1 200 {}", "R9999999999999999 5 {}", "GET / HTTP/1.1\r"]) {
    const { node, wire } = await wireFor(t);
    await wire.request(1, "v1.t.echo").answer(1);
    wire.send(`${line}\n`).request(2, "v1.t.echo");
    await until(() => wire.closed, { message: line });
    assert.deepEqual(wire.answers.map(({ id }) => id), [1], line);
    assert.equal(wire.lines.at(-1), "G1", line);
    await until(() => node.wires.size === 0);
  }
});

test("an id that has been used closes the wire", async (t) => {
  const { wire } = await wireFor(t);
  await wire.request(5, "v1.t.echo").answer(5);
  wire.request(5, "v1.t.echo");
  await until(() => wire.closed);
});

test("a body over the limit is answered 413, and the wire goes on", async (t) => {
  const { wire } = await wireFor(t, { server: { maxBodyBytes: 1_000 } });
  wire.request(1, "v1.t.echo", "ä".repeat(500)).request(2, "v1.t.echo", "ok");
  const answer = await wire.answer(1);
  assert.deepEqual([answer.status, answer.json.code], [413, "PAYLOAD_TOO_LARGE"]);
  assert.equal((await wire.answer(2)).json.result, "ok");
});

test("a line that is longer than any on a wire is answered 413, and the wire closes", async (t) => {
  const { node, wire } = await wireFor(t);
  wire.send(`R1 5000 ${"x".repeat(262_144 + 65)}`);
  assert.equal((await wire.answer(1)).status, 413);
  await until(() => wire.closed);
  await until(() => node.wires.size === 0);
});

test("a line of exactly the limit is taken", async (t) => {
  const { wire } = await wireFor(t);
  const filler = (length: number) => JSON.stringify({ actionName: "v1.t.echo", args: "x".repeat(length) });
  const answer = await wire.send(`R1 5000 ${filler(262_144 - filler(0).length)}\n`).answer(1);
  assert.equal(answer.status, 200);
});

test("a line that has begun and is not whole in time closes the wire; one that waits for requests stays", async (t) => {
  const { node, wire } = await wireFor(t, { server: { bodyTimeoutMs: 100 } });
  await sleep(250);
  await wire.request(1, "v1.t.echo").answer(1);
  wire.send('R2 5000 {"actionName"');
  const begunAt = performance.now();
  const drip = setInterval(() => wire.send(" "), 20);
  await until(() => wire.closed);
  clearInterval(drip);
  assert.ok(performance.now() - begunAt < 2_000);
  await until(() => node.wheel.size === 0);
});

test("a node with its limit of requests under way refuses more of them on a wire, undelivered", async (t) => {
  const { node, wire } = await wireFor(t, { server: { maxInFlight: 1 } });
  let release: (() => void) | undefined;
  node.actions.add("v1.t.wait", () => new Promise<void>((resolve) => (release = resolve)));
  wire.request(1, "v1.t.wait");
  await until(() => release);
  const answer = await wire.request(2, "v1.t.echo").answer(2);
  assert.deepEqual([answer.status, answer.json.undelivered, answer.json.draining], [503, true, undefined]);
  release!();
  await wire.answer(1);
  assert.equal((await wire.request(3, "v1.t.echo", "again").answer(3)).json.result, "again");
});

test("a caller that does not read its answers gets no more requests read until it does", async (t) => {
  const { node, wire } = await wireFor(t);
  const large = "x".repeat(200_000);
  let ran = 0;
  node.actions.add("v1.t.large", () => { ran++; return large; });
  wire.socket.pause();
  const most = 300;
  for (let id = 1; id <= most; id++) {
    wire.request(id, "v1.t.large", "y".repeat(2_000), 60_000);
    await new Promise(setImmediate);
  }
  let seen = -1;
  await until(async () => { const before = seen; seen = ran; await sleep(50); return before === ran && ran > 0; });
  assert.ok(ran < most, `${ran} of ${most} have run`);
  wire.socket.resume();
  await until(() => ran === most);
  wire.destroy();
});

test("a host that stops waits for the requests on wires, and its callers are told that it closes", async (t) => {
  const { node, wire } = await wireFor(t);
  let release: (() => void) | undefined;
  node.actions.add("v1.t.wait", () => new Promise<void>((resolve) => (release = resolve)));
  wire.request(1, "v1.t.wait");
  await until(() => release);
  let idle = false;
  const waited = node.server.idle().then(() => (idle = true));
  await sleep(20);
  assert.equal(idle, false);
  release!();
  await waited;
  await wire.answer(1);
  node.server.close();
  await until(() => wire.closed);
  assert.equal(wire.lines.at(-1), "G1");
});
