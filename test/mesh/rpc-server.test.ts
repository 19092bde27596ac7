import assert from "node:assert/strict";
import { after, before, describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { MeshError, MeshOverloadedError, MeshValidationError } from "@chimpbase/mesh";
import type { ScopedContext } from "#mesh/contract/registration.js";
import { EXECUTE_ACTION } from "#mesh/mesh/rpc-desk.js";
import { until } from "../support/wait.js";
import { PATH, post, RawConnection, RpcNode, TOKEN, type RawReply } from "./rpc-fixture.js";

const never = (): Promise<never> => new Promise(() => undefined);
const nested = (depth: number): unknown => JSON.parse("[".repeat(depth) + "]".repeat(depth));

describe("the RPC route", () => {
  let node: RpcNode;
  let seen: ScopedContext | undefined;
  let hanging: AbortSignal | undefined;

  before(async () => {
    node = await RpcNode.start({ server: { maxBodyBytes: 2000, maxResultBytes: 5000, bodyTimeoutMs: 150 } });
    node.actions
      .add("v1.t.echo", (ctx, args) => { seen = ctx; return args; })
      .add("v1.t.nothing", () => undefined)
      .add("v1.t.hang", (ctx) => { hanging = ctx.signal; return never(); })
      .add("v1.t.brief", never, { timeoutMs: 20 })
      .add("v1.t.throw", () => { throw Object.assign(new Error("broken"), { code: "E_BROKEN", data: { a: 1 } }); })
      .add("v1.t.invalid", () => { throw new MeshValidationError("wrong", [{ path: "a", message: "must be", constraint: "x" }]); })
      .add("v1.t.busy", () => { throw new MeshOverloadedError("busy"); })
      .add("v1.t.bigint", () => ({ n: 1n }))
      .add("v1.t.circle", () => { const a: { a?: unknown } = {}; a.a = a; return a; })
      .add("v1.t.large", () => "x".repeat(6000))
      .add("v1.t.status", () => { throw new MeshError("odd", { status: 204 }); });
  });
  after(() => node.close());

  const body = (actionName: string, args?: unknown, more: object = {}) => ({ actionName, args, callerNodeId: "c", deadlineMs: 1000, ...more });

  test("answers a minimal request, and keeps the arguments as they were sent", async () => {
    for (const args of [[1], null, { a: [null] }, "x", 0, false]) {
      const reply = await post(node, body("v1.t.echo", args));
      assert.equal(reply.status, 200);
      assert.equal(reply.headers["content-type"], "application/json");
      assert.equal(reply.headers["content-length"], String(Buffer.byteLength(reply.text)));
      assert.deepEqual(reply.json, { ok: true, result: args });
    }
    assert.deepEqual((await post(node, body("v1.t.nothing"))).json, { ok: true, result: null });
  });

  test("hands over to the host action", async () => {
    node.executed.length = 0;
    await post(node, body("v1.t.echo", 1));
    assert.deepEqual(node.executed, [EXECUTE_ACTION]);
  });

  test("continues the caller's chain, request, meta and trace", async () => {
    const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
    await post(node, body("v1.t.echo", 1, { meta: { tenant: 7 }, requestId: "req-1", level: 3, chain: ["v1.b.y", "v1.a.x"] }), { headers: { traceparent } });
    assert.equal(seen!.requestId, "req-1");
    assert.deepEqual(seen!.meta, { tenant: 7, traceparent });
    assert.deepEqual(seen!.caller, { nodeId: "c", action: "v1.b.y" });
    assert.equal(seen!.level, 3);
    assert.equal(seen!.scope.chain?.parent?.parent?.action, "v1.a.x");
  });

  test("makes do without optional fields, and with such as are none", async () => {
    for (const junk of [{}, { meta: [1], requestId: 7, level: -3, chain: "x" }, { meta: "m", requestId: "a b\n", level: 1e99, chain: [1, {}, "\n"] }, { meta: null, level: null }]) {
      const reply = await post(node, { actionName: "v1.t.echo", ...junk });
      assert.equal(reply.status, 200, reply.text);
      assert.equal(seen!.level, 1);
      assert.deepEqual(seen!.meta, {});
      assert.match(seen!.requestId, /^[0-9a-f-]{36}$/);
      assert.equal(seen!.caller, null);
    }
  });

  test("takes the caller from the header where the body has none", async () => {
    await post(node, { actionName: "v1.t.echo" }, { headers: { "x-chimpbase-mesh-caller": "c9" } });
    assert.deepEqual(seen!.caller, { nodeId: "c9", action: null });
  });

  test("keeps __proto__ out of meta", async () => {
    await post(node, '{"actionName":"v1.t.echo","meta":{"__proto__":{"admin":true},"a":1}}');
    assert.deepEqual(Object.getOwnPropertyNames(seen!.meta), ["a"]);
  });

  test("refuses a chain that is too deep by its name", async () => {
    const reply = await post(node, body("v1.t.echo", 1, { level: 101, chain: ["v1.b.y", "v1.a.x"] }));
    assert.equal(reply.json.code, "CALL_DEPTH");
    assert.match(String(reply.json.error), /v1\.a\.x → v1\.b\.y → v1\.t\.echo/);
  });

  test("leaves other paths to others", async () => {
    for (const path of ["/", `${PATH}/x`, `${PATH}x`, PATH.slice(0, -1)]) assert.equal((await post(node, body("v1.t.echo"), { path })).text, "not here");
    assert.equal((await post(node, body("v1.t.echo", 1), { path: `${PATH}?x=1` })).status, 200);
  });

  test("answers 405 to other methods", async () => {
    for (const method of ["GET", "PUT", "DELETE"]) {
      const reply = await post(node, "", { method, token: null });
      assert.deepEqual([reply.status, reply.headers.allow, reply.text], [405, "POST", '{"ok":false,"error":"mesh rpc requires POST"}']);
    }
  });

  test("answers 401 to a token that is missing, wrong, partial or sent twice", async () => {
    for (const token of [null, "", "wrong", TOKEN.slice(0, -1), `${TOKEN}x`, `${TOKEN}, ${TOKEN}`]) {
      const reply = await post(node, body("v1.t.echo"), { token });
      assert.deepEqual([reply.status, reply.text], [401, '{"ok":false,"error":"unauthorized mesh rpc"}']);
    }
    const twice = await post(node, body("v1.t.echo"), { token: null, headers: { "x-chimpbase-mesh-token": [TOKEN, TOKEN] } });
    assert.equal(twice.status, 401);
  });

  test("warns of a refused token once a minute, and never shows it", async (t) => {
    const fresh = await RpcNode.start({ nodeId: "fresh" });
    t.after(() => fresh.close());
    for (let i = 0; i < 3; i++) await post(fresh, body("v1.t.echo"), { token: "wr0ng" });
    const warnings = fresh.logs.filter((line) => line.includes("mesh rpc refused"));
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] ?? "", /"level":40.*meshToken/);
    assert.doesNotMatch(warnings[0] ?? "", /wr0ng/);
  });

  test("decides on the token before the body has come", async () => {
    const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: no\r\ncontent-length: 1000000\r\n\r\n`);
    await until(() => raw.received.includes("unauthorized mesh rpc"));
    assert.match(raw.received, /^HTTP\/1\.1 401 /);
    await until(() => raw.closed);
  });

  test("answers 400 to what is no request", async () => {
    for (const text of ["", "{", "null", "[]", "1", '"x"', "{}", '{"actionName":1}', '{"actionName":""}', '{"action":"v1.t.echo"}', "\u0000", "a=b&c=d"]) {
      const reply = await post(node, text);
      assert.deepEqual([reply.status, reply.text], [400, '{"ok":false,"error":"invalid json body"}'], JSON.stringify(text));
    }
  });

  test("reaches registered services only", async () => {
    for (const name of ["v1.t.none", "__chimpbase.mesh.rpc.execute", "__chimpbase.mesh.gc", "hello", "__proto__", "constructor"]) {
      const reply = await post(node, body(name));
      assert.equal(reply.status, 404);
      assert.equal(reply.json.error, `mesh action not found: ${name}`);
      assert.equal(reply.json.code, "ACTION_NOT_FOUND");
      assert.equal(reply.json.undelivered, true);
    }
  });

  test("says what a handler threw", async () => {
    const { status, json } = await post(node, body("v1.t.throw"));
    assert.equal(status, 500);
    const { stack, ...rest } = json;
    assert.deepEqual(rest, { ok: false, error: "broken", name: "Error", code: "E_BROKEN", data: { a: 1 }, nodeId: "node" });
    assert.match(String(stack), /broken/);
  });

  test("answers with the status of the error's class", async () => {
    const statuses = { "v1.t.invalid": 422, "v1.t.busy": 503, "v1.t.brief": 408, "v1.t.bigint": 500, "v1.t.circle": 500, "v1.t.large": 413, "v1.t.status": 500 };
    const codes = { "v1.t.invalid": "VALIDATION_FAILED", "v1.t.busy": "OVERLOADED", "v1.t.brief": "TIMEOUT", "v1.t.bigint": "RESULT_NOT_SERIALIZABLE", "v1.t.circle": "RESULT_NOT_SERIALIZABLE", "v1.t.large": "PAYLOAD_TOO_LARGE", "v1.t.status": "MESH_ERROR" };
    for (const [name, status] of Object.entries(statuses)) {
      const reply = await post(node, body(name));
      assert.deepEqual([name, reply.status, reply.json.code, reply.json.ok], [name, status, codes[name as keyof typeof codes], false]);
    }
  });

  test("does not let a handler's error pass for one that was never delivered", async () => {
    assert.equal((await post(node, body("v1.t.busy"))).json.undelivered, undefined);
  });

  test("refuses input deeper than 64 levels", async () => {
    assert.equal((await post(node, body("v1.t.echo", nested(64)))).status, 200);
    const reply = await post(node, body("v1.t.echo", nested(65)));
    assert.deepEqual([reply.status, reply.json.code], [422, "VALIDATION_FAILED"]);
    assert.equal((await post(node, body("v1.t.echo", nested(900)))).status, 422);
    assert.equal((await post(node, body("v1.t.echo", 1, { meta: { deep: nested(64) } }))).status, 422);
  });

  describe("and its deadline", () => {
    test("ends with 408, and aborts the handler", async () => {
      const reply = await post(node, body("v1.t.hang"), { headers: { "x-chimpbase-mesh-timeout": "300" } });
      assert.deepEqual([reply.status, reply.json.code, reply.json.error], [408, "TIMEOUT", "mesh call timed out after 300ms: v1.t.hang"]);
      assert.equal(hanging!.aborted, true);
    });

    test("comes from the header, then the body, then the default; what is no duration counts for nothing", async () => {
      const budget = async (header: string | null, deadlineMs?: unknown): Promise<number> => {
        const reply = await post(node, { actionName: "v1.t.echo", deadlineMs }, header === null ? {} : { headers: { "x-chimpbase-mesh-timeout": header } });
        assert.equal(reply.status, 200, reply.text);
        return seen!.scope.deadline!.budgetMs;
      };
      assert.equal(await budget("700", 300), 700);
      assert.equal(await budget(null, 300), 300);
      assert.equal(await budget(null), 5000);
      assert.equal(await budget("soon", 300), 300);
      assert.equal(await budget("1e3"), 5000);
      assert.equal(await budget("700, 700", 300), 300);
      assert.equal(await budget(null, Date.now() + 1000), 5000);
      assert.equal(await budget(null, "300"), 5000);
      assert.equal(await budget("99999999999999999999"), 5000);
    });

    test("that is spent is answered 408 at once", async () => {
      seen = undefined;
      assert.equal((await post(node, body("v1.t.echo"), { headers: { "x-chimpbase-mesh-timeout": "0" } })).status, 408);
      assert.equal((await post(node, body("v1.t.echo"), { headers: { "x-chimpbase-mesh-timeout": "-5" } })).status, 408);
      assert.equal((await post(node, body("v1.t.echo", {}, { deadlineMs: 0 }))).status, 408);
      assert.equal(seen, undefined);
    });
  });

  test("aborts the handler where the caller goes away", async () => {
    hanging = undefined;
    const text = JSON.stringify(body("v1.t.hang"));
    const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\ncontent-length: ${text.length}\r\n\r\n${text}`);
    const signal = await until(() => hanging);
    raw.destroy();
    await until(() => signal.aborted);
    assert.equal((signal.reason as MeshError).code, "CANCELLED");
  });

  describe("and a body over the limit", () => {
    const head = (more: string) => `POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\n${more}\r\n\r\n`;

    test("that is announced is refused before it comes, and the connection closes", async () => {
      const raw = (await RawConnection.to(node)).send(head("content-length: 2001"));
      await until(() => raw.received.includes("PAYLOAD_TOO_LARGE"));
      assert.match(raw.received, /^HTTP\/1\.1 413 /);
      await until(() => raw.closed);
    });

    test("that comes in chunks is refused when it passes the limit", async () => {
      const chunk = `3e8\r\n${"x".repeat(1000)}\r\n`;
      const raw = (await RawConnection.to(node)).send(head("transfer-encoding: chunked") + chunk + chunk);
      assert.equal(raw.received, "");
      raw.send("1\r\nx\r\n");
      await until(() => raw.received.includes("413"));
      await until(() => raw.closed);
    });

    test("still reads the refusal while it is sending", async () => {
      const reply = await post(node, "x".repeat(3_000_000));
      assert.equal(reply.status, 413);
    });

    test("of exactly the limit is taken", async () => {
      const filler = (length: number) => JSON.stringify({ actionName: "v1.t.nothing", args: "x".repeat(length) });
      const text = filler(2000 - filler(0).length);
      assert.equal(text.length, 2000);
      assert.equal((await post(node, text)).status, 200);
    });
  });

  test("does not wait for a slow body beyond its limit", async () => {
    const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\ncontent-length: 100\r\n\r\n{`);
    await until(() => raw.received.includes("408"));
    await until(() => raw.closed);
  });

  test("forgets a client that goes away within its body", async () => {
    const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\ncontent-length: 100\r\n\r\n{`);
    raw.destroy();
    await until(() => node.wheel.size === 0);
    assert.equal((await post(node, body("v1.t.echo", 1))).status, 200);
  });

  test("takes one request after the other on a connection, refusals among them", async () => {
    const request = (token: string, text: string) => `POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${token}\r\ncontent-length: ${text.length}\r\n\r\n${text}`;
    const text = JSON.stringify(body("v1.t.echo", "again"));
    const raw = (await RawConnection.to(node)).send(request("no", text) + request(TOKEN, text) + request(TOKEN, "{") + request(TOKEN, text));
    await until(() => raw.received.split("again").length === 3);
    assert.deepEqual([...raw.received.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]), ["401", "200", "400", "200"]);
    raw.destroy();
  });

  test("does not take a smuggled second request for one with a token", async () => {
    const inner = `POST ${PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}`;
    const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${inner}`);
    await until(() => raw.closed);
    assert.doesNotMatch(raw.received, /HTTP\/1\.1 200/);
  });
});

test("a draining node answers 503 and says that nothing was run", async () => {
  const node = await RpcNode.start();
  node.draining = true;
  const reply = await post(node, { actionName: "v1.t.x" });
  assert.deepEqual([reply.status, reply.json.code, reply.json.undelivered, reply.json.draining], [503, "OVERLOADED", true, true]);
  await node.close();
});

test("a node with its limit of requests under way answers 503, and works again when they have ended", async () => {
  const node = await RpcNode.start({ server: { maxInFlight: 1 } });
  let release: (() => void) | undefined;
  node.actions.add("v1.t.wait", () => new Promise<void>((resolve) => (release = resolve)));
  const first = post(node, { actionName: "v1.t.wait" });
  await until(() => release);
  const second = await post(node, { actionName: "v1.t.wait" });
  assert.deepEqual([second.status, second.json.code, second.json.undelivered, second.json.draining], [503, "OVERLOADED", true, undefined]);
  const raw = (await RawConnection.to(node)).send(`POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\ncontent-length: 1000\r\n\r\n`);
  await until(() => raw.received.includes("503"), { message: "it is refused before its body has come" });
  raw.destroy();
  release!();
  assert.equal((await first).status, 200);
  const third = post(node, { actionName: "v1.t.wait" });
  release = undefined;
  await until(() => release);
  release!();
  assert.equal((await third).status, 200);
  await node.close();
});

/** Keeps the event loop, as a handler does that computes. */
function burn(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test("a request that loses half of its time before its turn comes is refused, and reaches no handler", async (t) => {
  const node = await RpcNode.start();
  t.after(() => node.close());
  let begun = 0;
  node.actions.add("v1.t.burn", () => { begun++; burn(40); });
  const headers = { "x-chimpbase-mesh-timeout": "400" };
  const replies = await Promise.all(Array.from({ length: 30 }, () => post(node, { actionName: "v1.t.burn" }, { headers })));
  const refused = replies.filter(({ status }) => status === 503);
  assert.ok(refused.length > 10, `${refused.length} of 30 were refused`);
  assert.ok(begun > 0);
  assert.equal(begun + refused.length, 30);
  for (const { json } of refused) assert.deepEqual([json.code, json.undelivered, json.draining], ["OVERLOADED", true, undefined]);
  assert.match(String(refused[0]!.json.error), /(has waited|would wait) \d+ms for its turn/);
  assert.equal((await post(node, { actionName: "v1.t.burn" })).status, 200);
});

/** Thirty requests of 15 ms each, of which most wait for their turn when `inBetween` has run. */
async function queued(t: TestContext, inBetween: (node: RpcNode) => void): Promise<{ readonly begun: number; readonly replies: readonly RawReply[] }> {
  const node = await RpcNode.start();
  t.after(() => node.close());
  let begun = 0;
  node.actions.add("v1.t.burn", () => { begun++; burn(15); });
  const replies = Array.from({ length: 30 }, () => post(node, { actionName: "v1.t.burn" }));
  await until(() => begun > 3);
  inBetween(node);
  return { replies: await Promise.all(replies), begun };
}

test("requests that wait for their turn when their action is taken off go to other nodes, and reach no handler", async (t) => {
  const { begun, replies } = await queued(t, (node) => node.actions.remove("v1.t.burn"));
  const gone = replies.filter(({ status }) => status === 404);
  assert.ok(gone.length > 5, `${gone.length} of 30 were late`);
  assert.equal(begun + gone.length, 30);
  for (const { json } of gone) assert.deepEqual([json.code, json.undelivered], ["ACTION_NOT_FOUND", true]);
});

test("requests that wait for their turn when the node begins to refuse go to other nodes, and reach no handler", async (t) => {
  const { begun, replies } = await queued(t, (node) => (node.draining = true));
  const refused = replies.filter(({ status }) => status === 503);
  assert.ok(refused.length > 5, `${refused.length} of 30 were late`);
  assert.equal(begun + refused.length, 30);
  for (const { json } of refused) assert.deepEqual([json.code, json.undelivered, json.draining], ["OVERLOADED", true, true]);
});

const slowly = async (node: RpcNode, timeoutMs: number, inBetween: () => unknown): Promise<RawConnection> => {
  const text = JSON.stringify({ actionName: "v1.t.run" });
  const head = `POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${TOKEN}\r\nx-chimpbase-mesh-timeout: ${timeoutMs}\r\ncontent-length: ${text.length}\r\n\r\n`;
  const connection = (await RawConnection.to(node)).send(head + text.slice(0, 10));
  await inBetween();
  connection.send(text.slice(10));
  await until(() => connection.received.includes("}"));
  connection.destroy();
  return connection;
};

test("the time that a body takes to come is no wait for a turn", async (t) => {
  const node = await RpcNode.start();
  t.after(() => node.close());
  node.actions.add("v1.t.run", () => "ran");
  const { received } = await slowly(node, 2_000, () => sleep(1_200));
  assert.match(received, /"result":"ran"/);
});

test("a request whose body comes after the drain limit reaches no handler", async (t) => {
  const node = await RpcNode.start();
  t.after(() => node.close());
  let ran = false;
  node.actions.add("v1.t.run", () => (ran = true));
  const { received } = await slowly(node, 5_000, async () => {
    await sleep(50);
    node.dispatcher.cancelAll(new MeshError("the host stops"));
  });
  assert.match(received, /the host stops/);
  assert.equal(ran, false);
});

test("work that is no call and keeps the event loop busy delays calls, and starves none", async (t) => {
  const node = await RpcNode.start();
  t.after(() => node.close());
  node.actions.add("v1.t.run", () => "ran");
  let busy = true;
  const turn = (): void => {
    burn(12);
    if (busy) setImmediate(turn);
  };
  setImmediate(turn);
  t.after(() => (busy = false));
  const replies = await Promise.all(Array.from({ length: 20 }, () => post(node, { actionName: "v1.t.run" })));
  assert.deepEqual(new Set(replies.map(({ status }) => status)), new Set([200]));
});

test("stacks stay at home where they are not wanted", async () => {
  const node = await RpcNode.start({ server: { stacks: false } });
  node.actions.add("v1.t.throw", () => { throw new Error("broken"); });
  assert.equal("stack" in (await post(node, { actionName: "v1.t.throw" })).json, false);
  await node.close();
});

test("each token that is listed is accepted, and no empty one", async () => {
  const node = await RpcNode.start({ tokens: ["new", "old", ""] });
  const status = async (token: string) => (await post(node, "{", { token })).status;
  assert.deepEqual([await status("new"), await status("old"), await status(""), await status("other")], [400, 400, 401, 401]);
  await node.close();
});
