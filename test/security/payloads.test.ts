import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshError, MeshValidationError, chimpbaseAuth, onStart, service, worker } from "@chimpbase/mesh";
import type { Context, Host } from "@chimpbase/mesh";
import { IsOptional, IsString } from "class-validator";
import { z } from "zod";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { post, RawConnection } from "../mesh/rpc-fixture.js";
import { until } from "../support/wait.js";

const RPC = "/__chimpbase/mesh/rpc";
const NUL = "a\u0000b";
const LONE = "a\ud800b\udc00";
const token = "t0ken";

let validated = 0;
class Any { @IsOptional() @IsString() a?: string; }
const got: unknown[] = [];

const probe = service({
  name: "t", version: 1,
  actions: {
    echo: async (_ctx: Context, args: unknown) => args,
    dto: { params: Any, handler: async (_ctx: Context, args: unknown) => args },
    schema: { params: z.unknown().refine(() => ++validated > 0), handler: async (_ctx: Context, args: unknown) => args },
    first: async () => "first",
    second: async () => "second",
    store: async (ctx: Context, text: string) => (await ctx.db.query<{ text: string }>("SELECT ?1::text AS text", [text]))[0]!.text,
    fail: async (_ctx: Context, text: string) => { throw Object.assign(new Error(text), { code: text }); },
    spread: async (ctx: Context, text: string) => {
      await ctx.mesh.emit("told", { text });
      await ctx.queue.enqueue("job", { text });
      await ctx.mesh.emit("doomed", text, { balanced: true });
      return ctx.meta;
    },
  },
  events: {
    told: (ctx: Context, { text }: { text: string }) => void got.push([text, ctx.meta]),
    doomed: { balanced: true, maxAttempts: 1, handler: async (_ctx: Context, text: string) => { throw new Error(text); } },
  },
});

const portOf = (host: Host): { port: number } => ({ port: Number(new URL(host.url!).port) });
const nested = (levels: number, open = "[", close = "]"): string => open.repeat(levels) + (open === "[" ? "" : "1") + close.repeat(levels);

test("input that nests deeper than 64 levels is refused before it is looked at, whatever its depth", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([probe]);
  const node = portOf(host);
  const send = (action: string, args: string, meta = "{}") => post(node, `{"actionName":"v1.t.${action}","args":${args},"meta":${meta}}`, { token });
  assert.equal((await send("echo", nested(64))).status, 200);
  validated = 0;
  for (const levels of [65, 1_000, 100_000]) {
    for (const action of ["echo", "dto", "schema"]) {
      const reply = await send(action, nested(levels));
      assert.deepEqual([reply.status, (reply.json["data"] as { constraint: string }[])[0]!.constraint], [422, "maxDepth"]);
      assert.equal((await send(action, nested(Math.min(levels, 50_000), '{"a":', "}"))).status, 422);
    }
    assert.equal((await send("echo", "1", nested(Math.min(levels, 50_000), '{"a":', "}"))).status, 422);
  }
  assert.equal(validated, 0);
  assert.equal((await send("echo", nested(100_000).slice(1))).status, 400);
  await assert.rejects(host.mesh.call("v1.t.schema", JSON.parse(nested(1_000))), MeshValidationError);
});

test("numbers that no double holds, and keys that come twice, are read one way only", async () => {
  await using mesh = await MeshFixture.open();
  const node = portOf(await mesh.started([probe]));
  const send = (body: string) => post(node, body, { token });
  assert.equal((await send('{"actionName":"v1.t.echo","args":[1e400,-1e400,1e-400,123456789012345678901234567890]}')).text, '{"ok":true,"result":[null,null,0,1.2345678901234568e+29]}');
  for (const budget of ["1e400", "-1", "1e13", "null", '"5"', "[]", "0.0001"]) {
    assert.ok([200, 408].includes((await send(`{"actionName":"v1.t.echo","deadlineMs":${budget},"level":1e400}`)).status));
  }
  assert.equal((await send('{"actionName":"v1.t.echo","level":9007199254740991}')).json["code"], "CALL_DEPTH");
  assert.equal((await send(`{"actionName":"v1.t.echo","args":${"9".repeat(500_000)}}`)).text, '{"ok":true,"result":null}');
  assert.equal((await send('{"actionName":"v1.t.first","actionName":"v1.t.second"}')).json["result"], "second");
});

test("bytes that are no UTF-8, marks of byte order and text in other encodings end in 400 or in replaced characters", async () => {
  await using mesh = await MeshFixture.open();
  const node = portOf(await mesh.started([probe]));
  const send = async (body: Buffer): Promise<string> => {
    const raw = await RawConnection.to(node);
    raw.send(`POST ${RPC} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-chimpbase-mesh-token: ${token}\r\ncontent-length: ${body.length}\r\n\r\n`);
    raw.sendBytes(body);
    await until(() => raw.closed);
    return `${/^HTTP\/1.1 (\d+)/.exec(raw.received)?.[1]} ${raw.received.split("\r\n\r\n")[1]}`;
  };
  const body = '{"actionName":"v1.t.echo","args":"x"}';
  assert.match(await send(Buffer.from(`\ufeff${body}`)), /^400 /);
  assert.match(await send(Buffer.from(body, "utf16le")), /^400 /);
  assert.match(await send(Buffer.concat([Buffer.from(body), Buffer.from([0])])), /^400 /);
  assert.match(await send(Buffer.from(body.replace("x", "\xff\xc0\xaf"), "latin1")), /^200 .*"\ufffd+"/);
  assert.match(await send(Buffer.from(body.replace("echo", "ec\xc0ho"), "latin1")), /^404 /);
});

test("NUL and lone surrogates reach Postgres as text that it can hold, or fail their own call only", async () => {
  await using mesh = await MeshFixture.open();
  const keys: unknown[] = [];
  const host = mesh.host([probe]).register(
    worker("job", (_ctx, payload) => void got.push(payload)),
    chimpbaseAuth({ bootstrapKeySecret: "MESH_TOKEN" }),
    onStart(async (ctx) => {
      for (const [name, args] of [["create", { name: NUL }], ["revoke", { id: NUL }]] as const) keys.push(await ctx.action(`__chimpbase.auth.keys.${name}`, args).catch((error: unknown) => error));
    }),
  );
  await host.start();
  assert.ok(keys.every((error) => error instanceof MeshValidationError), String(keys));
  for (const text of [NUL, LONE]) {
    got.length = 0;
    assert.deepEqual(await host.mesh.call("v1.t.spread", text, { meta: { [text]: text } }), { [text]: text });
    await until(() => got.length === 2);
    assert.deepEqual(got.find(Array.isArray), [text, { [text]: text }]);
    assert.deepEqual(got.find((each) => !Array.isArray(each)), { text });
    await assert.rejects(host.mesh.call("v1.t.fail", text), { message: text, code: text });
  }
  await until(async () => (await mesh.query<{ n: number }>("SELECT count(*)::int AS n FROM _chimpbase_mesh_dead_letters")).at(0)!.n === 2);
  await assert.rejects(host.mesh.call("v1.t.store", NUL), (error: { code: string }) => error.code === "22021");
  assert.equal(await host.mesh.call("v1.t.store", LONE), "a\ufffdb\ufffd");
  for (const name of [NUL, LONE]) await assert.rejects(host.mesh.emit(name, {}), MeshError);
  const reply = await post(portOf(host), { actionName: NUL, requestId: NUL, callerNodeId: NUL, meta: { [NUL]: NUL } }, { token });
  assert.equal(reply.status, 404);
  assert.equal(await host.mesh.call("v1.t.first"), "first");
});

test("a body that lies about its length, and one over the limit, cost their own connection only", async () => {
  await using mesh = await MeshFixture.open();
  const node = portOf(await mesh.started([probe], { maxBodyBytes: 1_000 }));
  const head = `POST ${RPC} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${token}\r\n`;
  const short = (await RawConnection.to(node)).send(`${head}x-chimpbase-mesh-timeout: 200\r\ncontent-length: 500\r\n\r\n{}`);
  const long = (await RawConnection.to(node)).send(`${head}content-length: 2\r\n\r\n{}garbage\r\n\r\n`);
  const over = (await RawConnection.to(node)).send(`${head}transfer-encoding: chunked\r\n\r\nfff\r\n${"x".repeat(0xfff)}`);
  await until(() => short.closed && long.closed && over.closed);
  assert.match(short.received, /^HTTP\/1.1 408 /);
  assert.deepEqual(new Set([...long.received.matchAll(/HTTP\/1.1 (\d+)/g)].map(([, status]) => status)), new Set(["400"]));
  assert.match(over.received, /^HTTP\/1.1 413 /);
  assert.equal((await post(node, { actionName: "v1.t.first" }, { token })).status, 200);
});
