import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { describe, test, type TestContext } from "node:test";
import { MeshActionNotFoundError, MeshCallError, MeshUnauthorizedError, type MeshError } from "@chimpbase/mesh";
import type { TestContext as Ctx } from "./call-fixture.js";
import { Middle, type Passing, type Returning } from "./middle.js";
import { until } from "../support/wait.js";
import { RpcNode, type NodeOptions } from "./rpc-fixture.js";

const SECRET = "a-secret-of-sixteen-bytes-or-more";
const SIGNATURE = "x-chimpbase-mesh-signature";
const signed: NodeOptions = { tokens: [SECRET], rpcAuth: "signed" };

async function started(t: TestContext, options: NodeOptions): Promise<RpcNode> {
  const node = await RpcNode.start({ ...signed, ...options });
  t.after(() => node.close());
  node.actions.add(`v1.${node.nodeId}.echo`, (_ctx, args) => args).add("v1.s.who", () => node.nodeId);
  return node;
}

async function pair(t: TestContext, first: NodeOptions = {}, second: NodeOptions = {}): Promise<[RpcNode, RpcNode]> {
  const [a, b] = await Promise.all([started(t, { nodeId: "a", ...first }), started(t, { nodeId: "b", ...second })]);
  a.knows(b.address);
  b.knows(a.address);
  return [a, b];
}

/** Two nodes of which the first reaches the second through somebody else only. */
async function withMiddle(t: TestContext, first: NodeOptions = {}, second: NodeOptions = {}): Promise<[RpcNode, RpcNode, Middle]> {
  const [a, b] = await Promise.all([started(t, { nodeId: "a", ...first }), started(t, { nodeId: "b", ...second })]);
  const middle = await Middle.before(b);
  t.after(() => middle.close());
  a.knows({ ...b.address, advertisedUrl: middle.url });
  return [a, b, middle];
}

const caught = (call: Promise<unknown>): Promise<MeshError> => call.then((result) => assert.fail(`it resolved with ${JSON.stringify(result)}`), (error: unknown) => error as MeshError);

describe("signed calls", () => {
  test("work both ways, carry results and errors, and need no token", async (t) => {
    const [a, b] = await pair(t);
    b.actions.add("v1.b.fail", () => { throw Object.assign(new Error("broken"), { code: "E_BROKEN" }); });
    b.actions.add("v1.b.back", (ctx: Ctx) => ctx.call("v1.a.echo", "there and back"));
    for (const args of [[1], null, { text: "grüße" }, "x".repeat(100_000)]) assert.deepEqual(await a.call("v1.b.echo", args), args);
    assert.equal(await a.call("v1.b.back"), "there and back");
    const error = await caught(a.call("v1.b.fail"));
    assert.deepEqual([error.message, error.code, error.nodeId], ["broken", "E_BROKEN", "b"]);
    await assert.rejects(a.call("v1.b.none", {}, { nodeId: "b" }), MeshActionNotFoundError);
    assert.deepEqual([a.suspected, b.suspected], [[], []]);
  });

  test("may be many at the same time, more than there are connections", async (t) => {
    const [a] = await pair(t, { client: { connections: 4 } });
    const results = await Promise.all(Array.from({ length: 500 }, (_, n) => a.call("v1.b.echo", n)));
    assert.deepEqual(results, Array.from({ length: 500 }, (_, n) => n));
  });

  test("go on with their count where the connections to a peer were dropped in between", async (t) => {
    const [a, b] = await pair(t);
    for (let n = 0; n < 3; n++) {
      assert.equal(await a.call("v1.b.echo", n), n);
      a.transport.drop(b.nodeId);
    }
  });

  test("carry the trace in the body, whatever becomes of its header on the way", async (t) => {
    const [a, b, middle] = await withMiddle(t);
    const traceparent = `00-${"1".repeat(32)}-${"2".repeat(16)}-00`;
    b.actions.add("v1.b.trace", (ctx) => ctx.meta["traceparent"]);
    assert.equal(await a.call("v1.b.trace", {}, { meta: { traceparent } }), traceparent);
    middle.onRequest = (request) => ({ ...request, headers: { ...request.headers, traceparent: traceparent.replace("1", "3") } });
    assert.equal(await a.call("v1.b.trace", {}, { meta: { traceparent } }), traceparent);
    assert.equal(middle.requests[1]!.headers["traceparent"], traceparent);
  });

  test("work where a tracer in the caller's process adds a trace header of its own as requests are made", async (t) => {
    const [a, b] = await pair(t);
    const [own, added] = [`00-${"1".repeat(32)}-${"2".repeat(16)}-00`, `00-${"3".repeat(32)}-${"4".repeat(16)}-01`];
    const trace = (message: unknown): void => {
      const { request } = message as { readonly request: { readonly origin: string; addHeader(name: string, value: string): void } };
      if (request.origin === b.address.advertisedUrl) request.addHeader("traceparent", added);
    };
    subscribe("undici:request:create", trace);
    t.after(() => unsubscribe("undici:request:create", trace));
    b.actions.add("v1.b.trace", (ctx) => ctx.meta["traceparent"]);
    assert.equal(await a.call("v1.b.trace"), added);
    assert.equal(await a.call("v1.b.trace", {}, { meta: { traceparent: own } }), own);
  });

  test("are signed when they leave the queue for a connection, so that one which has waited for minutes is no older than others", async (t) => {
    let minutes = 0;
    const databaseNow = (): number => Date.now() + minutes * 60_000;
    const [a, b] = await pair(t, { databaseNow, client: { connections: 1 } }, { databaseNow });
    let release: (() => void) | undefined;
    b.actions.add("v1.b.wait", () => new Promise<void>((resolve) => (release = resolve)));
    const first = a.call("v1.b.wait");
    await until(() => release);
    const waiting = a.call("v1.b.echo", "late");
    minutes = 5;
    release!();
    await first;
    assert.equal(await waiting, "late");
  });

  test("need the same clock, which is the database's", async (t) => {
    const [a, b] = await pair(t, { databaseNow: () => Date.now() - 120_000 });
    const error = await caught(a.call("v1.b.echo"));
    assert.ok(error instanceof MeshUnauthorizedError);
    assert.match(b.logs.join(""), /too far from the database's clock/);
  });

  test("without a key to sign with fail with a reason", async (t) => {
    const [a] = await pair(t, { tokens: [] });
    const error = await caught(a.call("v1.b.echo"));
    assert.ok(error instanceof MeshUnauthorizedError && /no key to sign with/.test(error.message));
  });

  test("to a node with another secret are unauthorized, with what to look for", async (t) => {
    const [a] = await pair(t, { tokens: ["another"] });
    const error = await caught(a.call("v1.b.echo"));
    assert.ok(error instanceof MeshUnauthorizedError && !error.retryable);
    assert.match(error.message, /mesh peer b at http.* do both have the secret that meshToken names/);
    assert.deepEqual(a.suspected, ["b"]);
  });
});

test("keys rotate from one node to the next: with both listed everywhere, whichever is first", async (t) => {
  const works = async (first: string[], second: string[]): Promise<void> => {
    const [a, b] = await pair(t, { tokens: first }, { tokens: second });
    assert.deepEqual([await a.call("v1.b.echo", 1), await b.call("v1.a.echo", 2)], [1, 2]);
  };
  await works(["old"], ["old", "new"]);
  await works(["old", "new"], ["new", "old"]);
  await works(["new", "old"], ["new"]);
  const [a] = await pair(t, { tokens: ["old", "new"] }, { tokens: ["new"] });
  await assert.rejects(a.call("v1.b.echo"), MeshUnauthorizedError);
});

describe("a node that takes tokens and one that signs", () => {
  const rpcAuth = "token";

  test("call each other, and the token is sent to neither", async (t) => {
    const [a, , middle] = await withMiddle(t, { rpcAuth });
    assert.equal(await a.call("v1.b.echo", 1), 1);
    assert.ok(middle.requests[0]!.headers[SIGNATURE] !== undefined);
    const [c, , back] = await withMiddle(t, { nodeId: "c" }, { nodeId: "d", rpcAuth });
    assert.equal(await c.call("v1.d.echo", 2), 2);
    for (const { everything } of [middle, back]) assert.ok(!everything.includes(SECRET) && !everything.includes("x-chimpbase-mesh-token"));
  });

  test("go without signatures where both take tokens", async (t) => {
    const [a, , middle] = await withMiddle(t, { rpcAuth }, { rpcAuth });
    assert.equal(await a.call("v1.b.echo", 1), 1);
    assert.equal(middle.requests[0]!.headers["x-chimpbase-mesh-token"], SECRET);
    assert.ok(!middle.everything.includes(SIGNATURE));
  });

  test("no row makes a node that signs send its token", async (t) => {
    const [a, b, middle] = await withMiddle(t);
    a.forgets("b").knows({ ...b.address, advertisedUrl: middle.url, signed: false });
    assert.equal(await a.call("v1.b.echo", 1), 1);
    assert.ok(!middle.everything.includes(SECRET));
  });
});

describe("somebody in the middle", () => {
  const replaced = (change: (answer: Returning) => Partial<Returning>) => (answer: Returning): Returning => ({ ...answer, ...change(answer) });
  const unsigned = <T extends Passing | Returning>(message: T): T => {
    const { [SIGNATURE]: _signature, ...headers } = message.headers;
    return { ...message, headers };
  };
  const refused = (error: MeshError, message: RegExp): void => {
    assert.ok(error instanceof MeshCallError && error.code === "BAD_SIGNATURE" && error.retryable && error.status === 502, error.stack);
    assert.match(error.message, message);
  };

  const lies: readonly [string, (answer: Returning) => Returning, RegExp][] = [
    ["changes a result", replaced(({ body }) => ({ body: body.replace("1", "2") })), /answered 200 to v1\.b\.echo with a signature that does not fit/],
    ["changes a status", replaced(() => ({ status: 500 })), /answered 500 .*does not fit/],
    ["takes the signature off", unsigned, /answered 200 .*without a signature/],
    ["sends the signature twice", replaced(({ headers }) => ({ headers: { ...headers, [SIGNATURE]: [String(headers[SIGNATURE]), String(headers[SIGNATURE])] } })), /answered 200/],
    ["says that the node drains", () => ({ status: 503, headers: {}, body: '{"ok":false,"error":"draining","code":"OVERLOADED","undelivered":true}' }), /answered 503 .*without a signature/],
    ["says that the action is gone", () => ({ status: 404, headers: {}, body: '{"ok":false,"error":"gone","undelivered":true}' }), /answered 404/],
    ["points elsewhere", () => ({ status: 307, headers: { location: "/x" }, body: "" }), /answered 307/],
    ["answers HTML", () => ({ status: 502, headers: {}, body: "<html>" }), /answered 502/],
  ];
  for (const [what, lie, message] of lies) {
    test(`who ${what} is not believed`, async (t) => {
      const [a, , middle] = await withMiddle(t);
      const c = await started(t, { nodeId: "c" });
      a.knows(c.address);
      middle.onAnswer = lie;
      refused(await caught(a.call("v1.b.echo", 1, { nodeId: "b" })), message);
      assert.deepEqual(a.suspected, ["b"]);
      // No other node has been asked: whether the handler has run cannot be told.
      assert.deepEqual(c.executed, []);
    });
  }

  test("who answers 401 without a signature leaves the caller with what to look for", async (t) => {
    const [a, , middle] = await withMiddle(t);
    middle.onAnswer = () => ({ status: 401, headers: {}, body: '{"ok":false,"error":"unauthorized mesh rpc","retryable":true,"undelivered":true}' });
    const error = await caught(a.call("v1.b.echo", 1));
    assert.ok(error instanceof MeshUnauthorizedError && !error.retryable && /unsigned/.test(error.message));
    assert.deepEqual(a.suspected, ["b"]);
  });

  test("who repeats the answer to another request is not believed", async (t) => {
    const [a, , middle] = await withMiddle(t);
    assert.equal(await a.call("v1.b.echo", "first"), "first");
    const [first] = middle.answers;
    middle.onAnswer = () => first!;
    refused(await caught(a.call("v1.b.echo", "second")), /does not fit/);
  });

  test("who repeats a request has it run once", async (t) => {
    const [a, b, middle] = await withMiddle(t);
    let runs = 0;
    b.actions.add("v1.b.count", () => ++runs);
    assert.equal(await a.call("v1.b.count"), 1);
    assert.equal((await middle.forward(middle.requests[0]!)).status, 401);
    assert.equal(runs, 1);
  });

  test("who changes a request has it refused", async (t) => {
    const [a, b, middle] = await withMiddle(t);
    let runs = 0;
    b.actions.add("v1.b.pay", () => ++runs);
    const changes: ((request: Passing) => Passing)[] = [
      (request) => ({ ...request, body: request.body.replace("10", "99") }),
      (request) => ({ ...request, url: `${request.url}?` }),
      (request) => ({ ...request, headers: { ...request.headers, "x-chimpbase-mesh-caller": "mallory" } }),
      unsigned,
    ];
    for (const change of changes) {
      middle.onRequest = change;
      await assert.rejects(a.call("v1.b.pay", { amount: 10 }), MeshUnauthorizedError);
    }
    assert.equal(runs, 0);
  });

  test("sees no byte of the secret, whatever is called and answered", async (t) => {
    const [a, , middle] = await withMiddle(t);
    await a.call("v1.b.echo", 1);
    await caught(a.call("v1.b.none", {}, { nodeId: "b" }));
    assert.ok(middle.everything.includes("v1.b.echo") && middle.everything.includes(SIGNATURE));
    for (const form of [SECRET, Buffer.from(SECRET).toString("base64"), Buffer.from(SECRET).toString("hex")]) assert.ok(!middle.everything.includes(form));
  });
});

describe("a process that took over the address of another node", () => {
  test("sends calls on within the same attempt, and its predecessor is suspected", async (t) => {
    const [a, b] = await pair(t);
    const c = await started(t, { nodeId: "c" });
    a.forgets("b").knows({ ...b.address, nodeId: "b-before" }, c.address);
    a.actions.remove("v1.s.who");
    for (let n = 0; n < 4; n++) assert.equal(await a.call("v1.s.who"), "c");
    assert.deepEqual(a.suspected, ["b-before"]);
    assert.deepEqual(b.executed, []);
  });

  test("is, alone, a call that failed and may be tried again", async (t) => {
    const [a, b] = await pair(t);
    a.forgets("b").knows({ ...b.address, nodeId: "b-before" });
    const error = await caught(a.call("v1.b.echo"));
    assert.deepEqual([error instanceof MeshCallError, error.code, error.status, error.retryable, error.nodeId], [true, "WRONG_NODE", 421, true, "b"]);
  });

  test("is not taken for gone where a copy of the request went to a node of another address", async (t) => {
    const [a, b, middle] = await withMiddle(t);
    const [c, d] = [await started(t, { nodeId: "c" }), await started(t, { nodeId: "d" })];
    a.knows(d.address);
    let runs = 0;
    for (const node of [b, d]) node.actions.add("v1.s.once", () => ++runs);
    // The request is delivered, and its caller told that it was not: with a true answer of a node that it was not for.
    middle.onAnswer = (_answer, request) => middle.forward(request, c);
    const error = await caught(a.call("v1.s.once", {}, { nodeId: "b" }));
    assert.equal(error.code, "WRONG_NODE");
    a.suspected.length = 0;
    runs = 0;
    for (let n = 0; n < 4; n++) await a.call("v1.s.once").catch((failure: MeshError) => assert.equal(failure.code, "WRONG_NODE"));
    assert.equal(runs, 4);
  });
});
