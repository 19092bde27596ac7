import assert from "node:assert/strict";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { test, type TestContext } from "node:test";
import { MeshError, action, chimpbaseAuth, chimpbaseMesh, route, service } from "@chimpbase/mesh";
import type { Context, Host, Registration } from "@chimpbase/mesh";
import { post } from "../mesh/rpc-fixture.js";
import { makeHost } from "../support/host.js";
import { RawClient } from "../support/raw-client.js";
import { until } from "../support/wait.js";

const RPC = "/__chimpbase/mesh/rpc";
const TOKEN = "x-chimpbase-mesh-token: t0ken\r\n";
const ran: unknown[] = [];

const probe = service({
  name: "t", version: 1,
  actions: {
    mark: async (_ctx: Context, args: unknown) => void ran.push(args),
    about: async (ctx: Context) => ({ caller: ctx.caller, deadline: ctx.deadline, requestId: ctx.requestId, meta: ctx.meta }),
    fail: async (_ctx: Context, message: string) => { throw Object.assign(new MeshError(message, { code: message, data: { message } }), { name: message, nodeId: message }); },
  },
});
const mesh = (): Registration => chimpbaseMesh({ services: [probe], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" });
const auth = (): Registration => chimpbaseAuth({ bootstrapKeySecret: "BOOT", excludePaths: ["/livez", "/readyz", "/open/*"] });

interface Served {
  readonly host: Host;
  readonly node: { readonly port: number };
  /** A connection of its own that gets `text`. */
  send(text: string): RawClient;
}

async function serve(t: TestContext, ...registrations: Registration[]): Promise<Served> {
  ran.length = 0;
  const { host } = await makeHost(t, { secrets: { values: { MESH_TOKEN: "t0ken", BOOT: "b00t" } }, server: { port: 0, headersTimeoutMs: 500, requestTimeoutMs: 1_000 } });
  host.register(...registrations);
  await host.start();
  const send = (text: string): RawClient => {
    const client = new RawClient(host.url!).send(text);
    t.after(() => client.socket.destroy());
    return client;
  };
  return { host, node: { port: Number(new URL(host.url!).port) }, send };
}

/** A whole request that would run `v1.t.mark`. */
function marking(args: unknown, token: string): string {
  const body = JSON.stringify({ actionName: "v1.t.mark", args });
  return `POST ${RPC} HTTP/1.1\r\nhost: x\r\n${token}content-length: ${body.length}\r\n\r\n${body}`;
}

/** Heads of which parts of the world disagree where the request ends; what follows is hidden in the body of one reading. */
const AMBIGUOUS: readonly string[] = [
  "content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
  "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
  "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
  "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
  "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
  "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
  "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
  "transfer-encoding:\r\n chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
  "content-length: 0\r\ncontent-length: 4\r\n\r\n",
  "content-length: 0, 4\r\n\r\n",
  "content-length: 0\r\ncontent-length: 0\r\n\r\n",
  "content-length: -0\r\n\r\n",
  "content-length: 0x0\r\n\r\n",
  "content-length : 0\r\n\r\n",
  "x-a: b\ncontent-length: 0\r\n\r\n",
  "x-a: b\rcontent-length: 0\r\n\r\n",
  "x-a\u0000: b\r\ncontent-length: 0\r\n\r\n",
  "transfer-encoding: chunked\r\n\r\n0;a=\n\r\n\r\n",
  "transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
  "transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
  "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
  "transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
];

test("whatever a request says of its length, none that it hides gets past the token", async (t) => {
  const { send, node } = await serve(t, mesh(), auth(), route("any", () => new Response("reached")));
  for (const token of ["", "x-chimpbase-mesh-token: wrong\r\n"]) {
    for (const head of AMBIGUOUS) {
      const client = send(`POST ${RPC} HTTP/1.1\r\nhost: x\r\n${token}${head}${marking("smuggled", "")}`);
      await until(() => client.closed, { message: head });
      assert.deepEqual([head, client.statuses.filter((status) => status === "200")], [head, []]);
    }
  }
  assert.deepEqual(ran, []);
  // The token of one request on a connection is not that of the next.
  const client = send(marking("first", TOKEN) + marking("second", "") + marking("third", TOKEN));
  await until(() => client.statuses.length === 3);
  assert.deepEqual([client.statuses, ran], [["200", "401", "200"], ["first", "third"]]);
  assert.equal((await post(node, { actionName: "v1.t.about" }, { token: "t0ken" })).status, 200);
});

test("a member's request whose length is in doubt runs nothing that it hides", async (t) => {
  const { send } = await serve(t, mesh());
  for (const head of AMBIGUOUS) {
    const client = send(`POST ${RPC} HTTP/1.1\r\nhost: x\r\n${TOKEN}${head}${marking("smuggled", "")}`);
    await until(() => client.closed, { message: head });
  }
  assert.deepEqual(ran, []);
});

test("chunk extensions and trailers change nothing, and without an end are cut off", async (t) => {
  const { send } = await serve(t, mesh());
  const body = JSON.stringify({ actionName: "v1.t.mark", args: 1 });
  const head = `POST ${RPC} HTTP/1.1\r\nhost: x\r\n${TOKEN}transfer-encoding: chunked\r\n\r\n`;
  const plain = send(`${head}${body.length.toString(16)};a="b";c\r\n${body}\r\n0\r\nx-chimpbase-mesh-token: wrong\r\n\r\n`);
  await until(() => plain.statuses.length === 1);
  assert.deepEqual([plain.statuses, ran], [["200"], [1]]);
  const endless = send(`${head}${body.length.toString(16)};${"a=b;".repeat(20_000)}`);
  const trailing = send(`${head}0\r\n${"x: y\r\n".repeat(20_000)}`);
  await until(() => endless.closed && trailing.closed);
  assert.deepEqual([...endless.statuses, ...trailing.statuses].filter((status) => status < "400"), []);
});

test("a token in two headers, in a list, in another header or in the URL is no token", async (t) => {
  const { node } = await serve(t, mesh());
  const body = { actionName: "v1.t.mark" };
  const tries: { headers: Record<string, string | string[]>; path?: string }[] = [
    { headers: { "x-chimpbase-mesh-token": ["t0ken", "t0ken"] } },
    { headers: { "x-chimpbase-mesh-token": ["wrong", "t0ken"] } },
    { headers: { "x-chimpbase-mesh-token": "t0ken, t0ken" } },
    { headers: { "x-chimpbase-mesh-token": "t0ken," } },
    { headers: { "x-chimpbase-mesh-token": "T0KEN" } },
    { headers: { "x-chimpbase-mesh-token": "Bearer t0ken" } },
    { headers: { authorization: "Bearer t0ken", "x-api-key": "t0ken" } },
    { headers: { x_chimpbase_mesh_token: "t0ken" } },
    { headers: {}, path: `${RPC}?x-chimpbase-mesh-token=t0ken` },
  ];
  for (const { headers, path } of tries) assert.equal((await post(node, body, { token: null, headers, path: path ?? RPC })).status, 401, JSON.stringify(headers));
  assert.deepEqual(ran, []);
});

test("tokens that begin, end or differ like the right one are refused", async (t) => {
  const { node } = await serve(t, mesh());
  const near = ["", "t", "t0", "t0ke", "t0kem", "t0kenn", "t0ken0", "0ken", "t0ken\u00a0", "t".repeat(8_000), "t0ken".repeat(1_000)];
  for (const token of near) assert.equal((await post(node, { actionName: "v1.t.mark" }, { token: null, headers: { "x-chimpbase-mesh-token": Buffer.from(token, "latin1").toString("latin1") } })).status, 401, token);
  assert.deepEqual(ran, []);
});

test("two callers, two budgets or nonsense in their headers count as none", async (t) => {
  const { node } = await serve(t, mesh());
  const about = async (headers: Record<string, string | string[]>): Promise<{ caller: unknown; deadline: number; requestId: string; meta: object }> =>
    (await post(node, { actionName: "v1.t.about" }, { token: "t0ken", headers })).json["result"] as never;
  assert.equal((await about({ "x-chimpbase-mesh-caller": ["a", "b"] })).caller, null);
  assert.equal((await about({ "x-chimpbase-mesh-caller": "a b" })).caller, null);
  for (const timeout of [["1", "2"], "1, 2", "1e9", "0x10", "Infinity", "NaN", "999999999999999", "-"]) {
    const { deadline } = await about({ "x-chimpbase-mesh-timeout": timeout });
    assert.ok(deadline > 1_000 && deadline <= 5_000, `${String(timeout)}: ${deadline}`);
  }
  const { meta } = await about({ traceparent: ["00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01", "x"] });
  assert.deepEqual(meta, {});
});

const BREAK = "a\r\nset-cookie: b=c\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\u0000\u2028";

test("line breaks in errors, ids, traces and headers of routes do not break out of an answer", async (t) => {
  const { host, node } = await serve(t, mesh(), auth(), route("odd", async (request, env) => {
    const kind = new URL(request.url).pathname;
    if (kind === "/open/header") return new Response(null, { headers: { "x-a": BREAK } });
    if (kind === "/open/name") return new Response(null, { headers: { [BREAK]: "a" } });
    if (kind === "/open/redirect") return new Response(null, { status: 302, headers: { location: BREAK } });
    if (kind === "/open/text") return new Response(null, { statusText: BREAK });
    if (kind === "/open/error") throw new MeshError(BREAK, { status: 400, code: BREAK, data: BREAK });
    if (kind === "/open/call") return Response.json(await env.mesh.call("v1.t.fail", BREAK));
    return null;
  }));
  const failed = await post(node, { actionName: "v1.t.fail", args: BREAK, requestId: BREAK, callerNodeId: BREAK, meta: { traceparent: BREAK } }, { token: "t0ken" });
  assert.deepEqual([failed.status, failed.json["error"], failed.headers["set-cookie"]], [500, BREAK, undefined]);
  const about = await post(node, { actionName: "v1.t.about", requestId: BREAK, callerNodeId: BREAK }, { token: "t0ken" });
  const { caller, requestId } = about.json["result"] as { caller: unknown; requestId: string };
  assert.deepEqual([caller, /^[0-9a-f-]{36}$/.test(requestId)], [null, true]);
  for (const [path, status] of [["header", 500], ["name", 500], ["redirect", 500], ["text", 500], ["error", 400], ["call", 500]] as const) {
    const answer = await fetch(`${host.url}/open/${path}`, { redirect: "manual" });
    assert.deepEqual([path, answer.status, answer.headers.get("set-cookie")], [path, status, null]);
  }
});

test("HTTP of other times, methods that nobody needs and targets of proxies do not reach the RPC route", async (t) => {
  const { send, node, host } = await serve(t, mesh());
  const body = JSON.stringify({ actionName: "v1.t.mark" });
  const rest = `host: x\r\n${TOKEN}content-length: ${body.length}\r\n\r\n${body}`;
  const refused = [
    `POST ${RPC}\r\n`, `POST ${RPC} HTTP/0.9\r\n${rest}`, `POST ${RPC} HTTP/2.0\r\n${rest}`, `POST ${RPC} HTTP/1.2\r\n${rest}`,
    `CONNECT ${RPC} HTTP/1.1\r\n${rest}`, "CONNECT 127.0.0.1:5432 HTTP/1.1\r\nhost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00",
    `POST ${RPC} HTTP/1.1\r\n${TOKEN}content-length: ${body.length}\r\n\r\n${body}`,
    `post ${RPC} HTTP/1.1\r\n${rest}`,
  ].map(send);
  await until(() => refused.every(({ closed }) => closed));
  assert.deepEqual(refused.flatMap(({ statuses }) => statuses).filter((status) => status < "400"), []);
  assert.deepEqual(refused[2]!.statuses, ["505"]);
  for (const method of ["OPTIONS", "TRACE", "HEAD", "PUT", "PATCH", "DELETE", "QUERY", "PROPFIND"]) {
    assert.equal((await post(node, "", { method, token: "t0ken" })).status, 405, method);
  }
  for (const target of [`http://x${RPC}`, `http://127.0.0.1${RPC}`, `x:80${RPC}`, "*", `x${RPC}`]) {
    const client = send(`POST ${target} HTTP/1.1\r\nconnection: close\r\n${rest}`);
    await until(() => client.closed);
    assert.match(client.statuses[0]!, /^40[04]$/, target);
  }
  assert.deepEqual(ran, []);
  const old = send(`POST ${RPC} HTTP/1.0\r\n${TOKEN}content-length: ${body.length}\r\n\r\n${body}`);
  await until(() => old.closed);
  assert.deepEqual([old.statuses, ran.length], [["200"], 1]);
  assert.equal((await fetch(`${host.url}/livez`)).status, 200);
});

/** Spellings that some router may take for the path of RPC. */
const SPELLINGS = [
  `/${RPC}`, `//x${RPC}`, RPC.replace("/mesh", "//mesh"), `/.${RPC}`, `/x/..${RPC}`, `${RPC}/`, `${RPC}/.`, `${RPC}/../rpc`, `${RPC};a=b`, `${RPC}%3f`, `${RPC}%00`, `${RPC}%20`,
  RPC.replace("rpc", "%72pc"), RPC.replace("mesh/", "mesh%2f"), RPC.replace("mesh/", "mesh\\"), RPC.toUpperCase(), `/livez/..${RPC}`, `/open/..${RPC}`, `/open/%2e%2e${RPC}`, `/open/..%2f${RPC.slice(1)}`, `/livez?${RPC}`, `/livez%3f${RPC}`,
];

/** One request, of which the path is sent as it is. */
function raw(port: number, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    const body = JSON.stringify({ actionName: "v1.t.mark" });
    let text = "";
    socket.on("data", (chunk) => (text += String(chunk))).on("error", reject).on("close", () => resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1])));
    socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${TOKEN}content-length: ${body.length}\r\n\r\n${body}`);
  });
}

test("registered before the guard, RPC answers; after it, the guard does, however the path is spelt", async (t) => {
  const before = await serve(t, mesh(), auth());
  assert.equal((await post(before.node, { actionName: "v1.t.mark" }, { token: "t0ken" })).status, 200);
  ran.length = 0;
  for (const path of SPELLINGS) assert.ok([400, 401, 404].includes(await raw(before.node.port, path)), path);
  assert.deepEqual(ran, []);
  const after = await serve(t, auth(), mesh());
  for (const path of [RPC, `${RPC}?x`, ...SPELLINGS]) assert.ok([400, 401, 404, 405].includes(await raw(after.node.port, path)), path);
  assert.equal(await raw(after.node.port, RPC), 401);
  assert.deepEqual(ran, []);
  const withKey = { token: "t0ken", headers: { "x-api-key": "b00t" } };
  assert.equal((await post(after.node, { actionName: "v1.t.mark" }, withKey)).status, 200);
});

test("host actions, the mesh's own above all, are out of reach in every spelling", async (t) => {
  const { node } = await serve(t, mesh(), auth(), action("internal", () => void ran.push("internal")), action("v1.host.action", () => void ran.push("host")));
  const own = ["__chimpbase.mesh.rpc.execute", "__chimpbase.mesh.gc", "__chimpbase.auth.keys.create", "__chimpbase.auth.keys.list", "internal", "v1.host.action"];
  const spelt = own.flatMap((name) => [name, name.toUpperCase(), ` ${name}`, `${name} `, `${name}\n`, `${name}\u0000`, `v1.${name}`, `.${name}`, `${name}.`, `v1.t.${name}`, `v1.t..${name}`, name.replaceAll(".", "/"), name.replace("_", "\uff3f")]);
  for (const actionName of spelt) assert.deepEqual([actionName, (await post(node, { actionName, args: { actionName: "v1.t.mark", name: "x" } }, { token: "t0ken" })).status], [actionName, 404]);
  for (const actionName of own) assert.equal((await post(node, { actionName: [actionName] }, { token: "t0ken" })).status, 400);
  assert.deepEqual(ran, []);
});

test("Expect, Upgrade and a kept connection give a stranger nothing", async (t) => {
  const { node, send, host } = await serve(t, mesh());
  const upgrade = send(`GET ${RPC} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n${marking("after upgrade", "")}`);
  const settings = send(`POST ${RPC} HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 0\r\n\r\n`);
  await until(() => upgrade.statuses.length > 0 && settings.statuses.length > 0);
  assert.deepEqual([upgrade.statuses[0], settings.statuses], ["405", ["401"]]);
  const expecting = httpRequest({ host: "127.0.0.1", port: node.port, method: "POST", path: RPC, headers: { expect: "100-continue", "content-length": 100_000_000 }, agent: false });
  const status = await new Promise((resolve, reject) => expecting.on("response", ({ statusCode }) => resolve(statusCode)).on("error", reject).flushHeaders());
  expecting.destroy();
  assert.equal(status, 401);
  assert.deepEqual(ran, []);
  assert.equal((await fetch(`${host.url}/livez`)).status, 200);
});
