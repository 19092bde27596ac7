import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from "node:http";
import { connect, createServer } from "node:net";
import { test, type TestContext } from "node:test";
import { MeshActionNotFoundError, MeshError, route, type HostOptions, type RawRouteRegistration, type Registration } from "@chimpbase/mesh";
import { makeHost, type LogLine } from "../support/host.js";
import { until } from "../support/wait.js";

interface Served {
  readonly url: string;
  readonly lines: readonly LogLine[];
}

async function serve(t: TestContext, registrations: Registration[], options: HostOptions = {}): Promise<Served> {
  const { host, lines } = await makeHost(t, options);
  host.register(...registrations);
  await host.start();
  return { url: host.url as string, lines };
}

function raw(name: string, handler: RawRouteRegistration["handler"]): RawRouteRegistration {
  return { kind: "raw-route", name, handler };
}

/** One request that `fetch` would not send as it is. */
async function send(url: string, options: { path?: string; method?: string; headers?: OutgoingHttpHeaders; body?: string; agent?: Agent }): Promise<{ status: number; headers: IncomingMessage["headers"]; text: string }> {
  const request = httpRequest(url, { method: options.method ?? "GET", path: options.path ?? "/", headers: options.headers ?? {}, agent: options.agent ?? false });
  request.end(options.body);
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode ?? 0, headers: response.headers, text };
}

/** Writes `text` to a connection of its own; resolves with all that comes back until it closes. */
async function exchange(url: string, text: string, until?: RegExp): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.write(text);
  let answer = "";
  for await (const chunk of socket) {
    answer += String(chunk);
    if (until?.test(answer)) break;
  }
  return answer;
}

test("routes are asked in order, null passes on, and they share a bag", async (t) => {
  const { url } = await serve(t, [
    route("first", (_request, env) => { env.set("seen", ["first"]); return null; }),
    raw("second", () => false),
    route("third", (request, env) => Response.json({ seen: env.get("seen"), path: new URL(request.url).pathname })),
    route("fourth", () => new Response("never")),
  ]);
  assert.deepEqual(await (await fetch(`${url}/x?y=1`)).json(), { seen: ["first"], path: "/x" });
});

test("a request that no route answers gets 404", async (t) => {
  const { url } = await serve(t, [route("none", () => null)]);
  const answer = await fetch(`${url}/nothing`);
  assert.equal(answer.status, 404);
  assert.deepEqual(await answer.json(), { ok: false, error: "not found" });
});

test("status, headers, several cookies and a body go out; HEAD gets no body", async (t) => {
  const { url } = await serve(t, [route("page", () => {
    const headers = new Headers({ "x-one": "1" });
    headers.append("set-cookie", "a=1; Path=/");
    headers.append("set-cookie", "b=2");
    return new Response("body", { status: 201, headers });
  })]);
  const answer = await send(url, {});
  assert.deepEqual([answer.status, answer.headers["x-one"], answer.text], [201, "1", "body"]);
  assert.deepEqual(answer.headers["set-cookie"], ["a=1; Path=/", "b=2"]);
  const head = await send(url, { method: "HEAD" });
  assert.deepEqual([head.status, head.headers["x-one"], head.text], [201, "1", ""]);
});

test("headers and body of a request arrive, and what one route leaves unread the next can read", async (t) => {
  const { url } = await serve(t, [
    route("passes", () => null),
    route("echo", async (request) => new Response(`${request.method} ${request.headers.get("x-many")} ${await request.text()}`)),
  ]);
  const answer = await send(url, { method: "PUT", headers: { "x-many": ["a", "b"] }, body: "héllo" });
  assert.equal(answer.text, Buffer.from("PUT a, b héllo").toString());
});

test("a raw route behind a web route that passed on reads the body", async (t) => {
  const { url } = await serve(t, [
    route("passes", () => null),
    raw("raw", async (request, response) => {
      let text = "";
      for await (const chunk of request) text += String(chunk);
      response.end(`raw ${text}`);
      return true;
    }),
  ]);
  assert.equal((await send(url, { method: "POST", body: "x".repeat(100_000) })).text, `raw ${"x".repeat(100_000)}`);
});

test("the URL of a request cannot be forged by path, target or host header", async (t) => {
  const { url } = await serve(t, [route("url", (request) => new Response(request.url))]);
  const local = new URL(url).host;
  assert.equal((await send(url, { path: "//evil.example/x" })).text, `http://${local}//evil.example/x`);
  assert.equal((await send(url, { path: "http://evil.example/x?y" })).text, `http://${local}/x?y`);
  assert.equal((await send(url, { path: "/x", headers: { host: "a.example:99" } })).text, "http://a.example:99/x");
  assert.equal((await send(url, { path: "/x", headers: { host: "a/b@c" } })).text, `http://${local}/x`);
  assert.equal((await send(url, { method: "OPTIONS", path: "*" })).text, `http://${local}/`);
});

test("a body over maxBodyBytes is answered with 413, announced or not", async (t) => {
  const { url } = await serve(t, [route("read", async (request) => new Response(String((await request.text()).length)))], { server: { port: 0, maxBodyBytes: 1000 } });
  assert.equal((await send(url, { method: "POST", body: "x".repeat(1000) })).text, "1000");
  const announced = await send(url, { method: "POST", headers: { "content-length": 1001 }, body: "x".repeat(1001) });
  assert.equal(announced.status, 413);
  const chunked = await send(url, { method: "POST", headers: { "transfer-encoding": "chunked" }, body: "x".repeat(5000) });
  assert.equal(chunked.status, 413);
  assert.equal((JSON.parse(chunked.text) as { code: string }).code, "PAYLOAD_TOO_LARGE");
});

test("a body that a route reads in part does not hold up the next request of the connection", async (t) => {
  const { url } = await serve(t, [route("part", async (request) => {
    await request.body?.getReader().read();
    return new Response("enough");
  })]);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  for (let i = 0; i < 3; i++) assert.equal((await send(url, { method: "POST", body: "x".repeat(2_000_000), agent })).text, "enough");
});

test("a method that no Request can have is answered with 405", async (t) => {
  const { url } = await serve(t, [route("any", () => new Response("no"))]);
  assert.equal((await send(url, { method: "TRACE" })).status, 405);
});

test("a trace that a request belongs to travels in meta, where it is one", async (t) => {
  const { url } = await serve(t, [route("meta", (_request, env) => Response.json(env.meta))]);
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  assert.deepEqual(JSON.parse((await send(url, { headers: { traceparent } })).text), { traceparent });
  assert.deepEqual(JSON.parse((await send(url, { headers: { traceparent: "forged" } })).text), {});
});

test("a mesh error of a route answers with its status, code and data; any other says nothing of itself", async (t) => {
  const errors: Record<string, unknown> = {
    "/mesh": new MeshError("too many", { code: "TOO_MANY", status: 429, data: { left: 0 } }),
    "/missing": new MeshActionNotFoundError("v1.x.y"),
    "/circular": new MeshError("odd", { status: 400, data: (() => { const loop: Record<string, unknown> = {}; loop["loop"] = loop; return loop; })() }),
    "/plain": new Error("password=s3cret"),
    "/string": "thrown text",
  };
  const { url, lines } = await serve(t, [route("fails", (request) => { throw errors[new URL(request.url).pathname]; })]);
  const ask = async (path: string): Promise<unknown> => { const answer = await fetch(url + path); return [answer.status, await answer.json()]; };
  assert.deepEqual(await ask("/mesh"), [429, { ok: false, error: "too many", code: "TOO_MANY", data: { left: 0 } }]);
  assert.deepEqual(await ask("/missing"), [404, { ok: false, error: "mesh action not found: v1.x.y", code: "ACTION_NOT_FOUND" }]);
  assert.deepEqual(await ask("/circular"), [400, { ok: false, error: "odd", code: "MESH_ERROR" }]);
  assert.deepEqual(await ask("/plain"), [500, { ok: false, error: "internal error" }]);
  assert.deepEqual(await ask("/string"), [500, { ok: false, error: "internal error" }]);
  assert.ok(lines.some(({ err }) => JSON.stringify(err)?.includes("s3cret")), "the log has it");
});

test("a route that returns no Response, or one that was sent before, is answered with 500", async (t) => {
  const once = new Response("once");
  const { url } = await serve(t, [route("odd", (request) => (new URL(request.url).pathname === "/once" ? once : ("text" as never)))]);
  assert.equal((await fetch(`${url}/text`)).status, 500);
  assert.equal((await fetch(`${url}/once`)).status, 200);
  assert.equal((await fetch(`${url}/once`)).status, 500);
});

test("a body streams out as it is made, at the pace of the client", async (t) => {
  let made = 0;
  const { url } = await serve(t, [route("stream", () => new Response(new ReadableStream({
    pull(controller) {
      controller.enqueue(new Uint8Array(64 * 1024));
      if (++made === 2_000) controller.close();
    },
  })))]);
  const request = httpRequest(url, { agent: false });
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  await until(() => made > 0);
  // Read nothing until production stands still: only buffers on the way may be full.
  let last = -1;
  await until(async () => {
    const still = made === last;
    last = made;
    await new Promise((resolve) => setTimeout(resolve, 30));
    return still;
  });
  assert.ok(made < 1_000, `made ${made} chunks for a client that reads none`);
  let bytes = 0;
  for await (const chunk of response) bytes += (chunk as Buffer).length;
  assert.equal(bytes, 2_000 * 64 * 1024);
});

test("a client that goes away cancels a streaming body and aborts the signal of its route", async (t) => {
  const seen: string[] = [];
  const { url, lines } = await serve(t, [route("sse", (request, env) => {
    env.signal.addEventListener("abort", () => seen.push("env"));
    request.signal.addEventListener("abort", () => seen.push("request"));
    return new Response(new ReadableStream({
      start(controller) { controller.enqueue(Buffer.from("data: 1\n\n")); },
      cancel() { seen.push("cancel"); },
    }), { headers: { "content-type": "text/event-stream" } });
  })]);
  const controller = new AbortController();
  const answer = await fetch(url, { signal: controller.signal });
  const reader = answer.body!.getReader();
  assert.equal(Buffer.from((await reader.read()).value!).toString(), "data: 1\n\n");
  controller.abort();
  await reader.read().catch(() => undefined);
  await until(() => seen.length === 3);
  assert.deepEqual(seen.sort(), ["cancel", "env", "request"]);
  assert.deepEqual(lines.filter(({ level }) => level >= 40), []);
});

test("a client that goes away while its route works aborts the signal", async (t) => {
  let begun = false;
  let aborted: unknown;
  const { url } = await serve(t, [route("slow", async (_request, env) => {
    begun = true;
    await once(env.signal, "abort");
    aborted = env.signal.reason;
    throw env.signal.reason;
  })]);
  const controller = new AbortController();
  const answer = fetch(url, { signal: controller.signal }).catch(() => undefined);
  await until(() => begun);
  controller.abort();
  await answer;
  await until(() => aborted);
  assert.equal((aborted as MeshError).code, "CANCELLED");
});

test("a body that fails on its way cuts the connection, so that nobody takes it for whole", async (t) => {
  const { url, lines } = await serve(t, [route("broken", () => new Response(new ReadableStream({
    pull(controller) {
      controller.enqueue(Buffer.from("part"));
      setTimeout(() => controller.error(new Error("lost")), 5);
      return new Promise(() => undefined);
    },
  })))]);
  const answer = await fetch(url);
  await assert.rejects(answer.text());
  await until(() => lines.some(({ msg }) => msg === "a request failed"));
});

test("a port in use is an error that names port and option", async (t) => {
  const blocker = createServer().listen(0, "127.0.0.1");
  await once(blocker, "listening");
  t.after(() => blocker.close());
  const { port } = blocker.address() as { port: number };
  const { host } = await makeHost(t, { server: { port } });
  await assert.rejects(host.start(), { code: "CONFIGURATION", message: new RegExp(`server\\.port.*127\\.0\\.0\\.1:${port} is in use`) });
});

test("a host bound to an IPv6 address has a URL that can be fetched", async (t) => {
  const { url } = await serve(t, [], { server: { port: 0, host: "::1" } });
  assert.match(url, /^http:\/\/\[::1\]:\d+$/);
  assert.equal((await fetch(`${url}/livez`)).status, 200);
});

test("connections over maxConnections are closed at once", async (t) => {
  const { url } = await serve(t, [], { server: { port: 0, maxConnections: 1 } });
  const { port, hostname } = new URL(url);
  const first = connect(Number(port), hostname);
  await once(first, "connect");
  await until(async () => (await exchange(url, "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").catch(() => "")) === "");
  first.destroy();
});

const takesUpgrades: Registration = {
  kind: "upgrade", name: "echo-upgrade", protocol: "echo",
  handler: (request, socket, head) => {
    if (request.url !== "/echo") return false;
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    socket.write(head);
    socket.pipe(socket);
    return true;
  },
};

const upgradeRequest = (path: string, protocol: string, more = ""): string => `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: ${protocol}\r\n${more}\r\n`;

test("an upgrade goes to the registration of its protocol, with the bytes that came along", async (t) => {
  const { url } = await serve(t, [takesUpgrades]);
  const answer = await exchange(url, `${upgradeRequest("/echo", "echo")}hello`, /hello$/);
  assert.match(answer, /^HTTP\/1\.1 101 [^]*hello$/);
});

test("a guard that stands before an upgrade refuses it; nobody taking it gets 404", async (t) => {
  const { url } = await serve(t, [
    route("guard", (request) => (request.headers.get("x-api-key") === "k" ? null : new Response("no", { status: 401 }))),
    takesUpgrades,
  ]);
  assert.match(await exchange(url, upgradeRequest("/echo", "echo")), /^HTTP\/1\.1 401 /);
  assert.match(await exchange(url, upgradeRequest("/echo", "echo", "x-api-key: k\r\n"), /\r\n\r\n/), /^HTTP\/1\.1 101 /);
  assert.match(await exchange(url, upgradeRequest("/other", "echo", "x-api-key: k\r\n")), /^HTTP\/1\.1 404 /);
});

test("an upgrade to a protocol that nobody offers is handled as the plain request that it also is", async (t) => {
  const { url } = await serve(t, [takesUpgrades, route("plain", async (request) => new Response(`${request.method} ${request.headers.get("upgrade")} ${await request.text()}`))]);
  const text = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\ncontent-length: 5\r\n\r\nhello";
  const answer = await exchange(url, text);
  assert.match(answer, /^HTTP\/1\.1 200 [^]*POST null hello/);
});

test("an upgrade whose handler throws closes the connection and is logged", async (t) => {
  const { url, lines } = await serve(t, [{ ...takesUpgrades, handler: () => { throw new Error("no upgrade today"); } } as Registration]);
  assert.equal(await exchange(url, upgradeRequest("/echo", "echo")).catch(() => ""), "");
  assert.ok(lines.some(({ err }) => JSON.stringify(err)?.includes("no upgrade today")));
});
