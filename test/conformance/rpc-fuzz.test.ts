import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { MeshError } from "@chimpbase/mesh";
import { createErrorReviver } from "#mesh/mesh/error-revival.js";
import { readAnswer } from "#mesh/mesh/rpc-answer.js";
import { decodeRequest, decodeTimeout } from "#mesh/mesh/rpc-codec.js";
import { until } from "../support/wait.js";
import { PATH, post, RawConnection, RpcNode, TOKEN } from "../mesh/rpc-fixture.js";

const RUNS = 150;
const STATUSES = new Set([200, 400, 401, 404, 405, 408, 413, 422, 500, 503]);

const field = fc.oneof(fc.jsonValue(), fc.constant("v1.t.echo"), fc.constant("v1.t.throw"), fc.constant("__proto__"));
const requestBody = fc.oneof(
  fc.string(),
  fc.json(),
  fc.record({ actionName: field, args: field, callerNodeId: field, deadlineMs: field, meta: field, requestId: field, level: field, chain: field }, { requiredKeys: [] }).map((body) => JSON.stringify(body)),
  fc.record({ actionName: fc.constant("v1.t.echo"), args: fc.jsonValue({ maxDepth: 10 }), deadlineMs: fc.oneof(fc.double(), fc.integer()) }).map((body) => JSON.stringify(body)),
);
const headerText = fc.string({ unit: fc.constantFrom(..."abc019-.,; e\t\"") });
const token = fc.oneof({ weight: 4, arbitrary: fc.constant<string | null>(TOKEN) }, { weight: 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: headerText });

describe("whatever is sent to the RPC route", () => {
  let node: RpcNode;
  const rejections: unknown[] = [];
  const onRejection = (reason: unknown): void => void rejections.push(reason);

  before(async () => {
    process.on("unhandledRejection", onRejection);
    node = await RpcNode.start({ server: { bodyTimeoutMs: 100, maxBodyBytes: 5000 } });
    node.actions.add("v1.t.echo", (_ctx, args) => args).add("v1.t.throw", (_ctx, args) => { throw args; });
  });
  after(async () => {
    await node.close();
    process.off("unhandledRejection", onRejection);
  });

  test("is answered as documented", async () => {
    await fc.assert(fc.asyncProperty(requestBody, token, headerText, fc.constantFrom("POST", "POST", "POST", "GET", "PUT"), async (body, shown, timeout, method) => {
      const reply = await post(node, body, { method, token: shown, headers: { "x-chimpbase-mesh-timeout": timeout, traceparent: timeout } });
      assert.ok(STATUSES.has(reply.status), `${reply.status} ${reply.text}`);
      assert.equal(reply.json.ok, reply.status === 200, reply.text);
      if (reply.status !== 200) assert.equal(typeof reply.json.error, "string");
      if (shown !== TOKEN && method === "POST") assert.equal(reply.status, 401);
    }), { numRuns: RUNS });
    assert.deepEqual(rejections, []);
  });

  test("arguments come back as they went", async () => {
    await fc.assert(fc.asyncProperty(fc.jsonValue({ maxDepth: 20 }), async (args) => {
      const body = JSON.stringify({ actionName: "v1.t.echo", args });
      fc.pre(body.length < 5000);
      const { text } = await post(node, body);
      assert.equal(text, `{"ok":true,"result":${JSON.stringify(args)}}`);
    }), { numRuns: RUNS });
  });

  test("in bare bytes ends in an answer or a closed connection, and the node lives on", async () => {
    const line = fc.constantFrom(`POST ${PATH} HTTP/1.1`, `GET ${PATH} HTTP/1.1`, "host: x", `x-chimpbase-mesh-token: ${TOKEN}`, "content-length: 5", "content-length: -1", "content-length: 99999", "transfer-encoding: chunked", "transfer-encoding: x, chunked", "expect: 100-continue", "connection: close", "upgrade: websocket", "", "0", "5", "hello", "{}", "\u0000");
    await fc.assert(fc.asyncProperty(fc.array(line, { minLength: 1, maxLength: 12 }), async (lines) => {
      const raw = (await RawConnection.to(node)).send(`${lines.join("\r\n")}\r\n\r\n`);
      raw.end();
      await until(() => raw.closed, { timeoutMs: 3000 });
    }), { numRuns: 60 });
    assert.equal((await post(node, { actionName: "v1.t.echo", args: 1 })).status, 200);
    await until(() => node.wheel.size === 0);
    assert.deepEqual(rejections, []);
  });
});

describe("whatever a body or header holds", () => {
  test("decoding gives a request or null", () => {
    fc.assert(fc.property(requestBody, (text) => {
      const request = decodeRequest(text);
      if (request === null) return;
      assert.ok(Number.isInteger(request.level) && request.level >= 1);
      assert.ok(request.deadlineMs === null || request.deadlineMs >= 0);
      assert.equal(Object.hasOwn(request.meta, "__proto__"), false);
    }));
  });

  test("a timeout is a duration or null", () => {
    fc.assert(fc.property(fc.oneof(fc.string(), headerText, fc.double().map(String), fc.integer().map(String)), (text) => {
      const ms = decodeTimeout(text);
      assert.ok(ms === null || (ms >= 0 && ms < 1e12));
    }));
  });
});

test("whatever a peer answers is a result or an error of the mesh", () => {
  const revive = createErrorReviver([]);
  const answer = fc.oneof(fc.string(), fc.json(), fc.record({ ok: field, result: field, error: field, name: field, type: field, code: field, data: field, retryable: field, status: field, nodeId: field, stack: field, undelivered: field }, { requiredKeys: [] }).map((value) => JSON.stringify(value)));
  fc.assert(fc.property(fc.integer({ min: 200, max: 599 }), answer, (status, text) => {
    try {
      readAnswer(status, text, { action: "v1.a.x", nodeId: "n" }, revive);
    } catch (error) {
      assert.ok(error instanceof MeshError && error instanceof Error);
      assert.equal(typeof error.message, "string");
      assert.equal(typeof error.retryable, "boolean");
    }
  }), { numRuns: 500 });
});
