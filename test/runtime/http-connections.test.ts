import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { chimpbaseMesh, onStop, route, service, type Host, type HostOptions, type Registration } from "@chimpbase/mesh";
import { makeHost } from "../support/host.js";
import { RawClient } from "../support/raw-client.js";
import { echoUpgrade as echo } from "../support/upgrade.js";
import { until } from "../support/wait.js";

const RPC = "/__chimpbase/mesh/rpc";
const MEGABYTE = 1024 * 1024;

interface Gate {
  readonly opened: Promise<void>;
  open: () => void;
}

function gate(): Gate {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

async function serve(t: TestContext, registrations: Registration[], options: HostOptions = {}): Promise<Host> {
  const { host } = await makeHost(t, { secrets: { values: { MESH_TOKEN: "t0ken" } }, ...options });
  host.register(...registrations);
  await host.start();
  return host;
}

/** A bare connection, which is closed when the test ends. */
class Client extends RawClient {
  constructor(t: TestContext, host: Host) {
    super(host.url as string);
    t.after(() => this.socket.destroy());
  }
}

function rpc(actionName: string, token = "t0ken"): string {
  const body = JSON.stringify({ actionName });
  return `POST ${RPC} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: ${token}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`;

function mesh(actions: Parameters<typeof service>[0]["actions"]): Registration {
  return chimpbaseMesh({ services: [service({ name: "t", version: 1, actions: actions ?? {} })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" });
}

/** A route for each path, which waits for its gate. */
function waiting(gates: Readonly<Record<string, Gate>>, begun: string[]): Registration {
  return route("waiting", async (request) => {
    const path = new URL(request.url).pathname;
    begun.push(path);
    await gates[path]?.opened;
    return new Response(path);
  });
}

test("pipelined requests are answered in their order, whichever is done first", async (t) => {
  const slow = gate();
  const done: string[] = [];
  const host = await serve(t, [mesh({
    slow: async () => { await slow.opened; return "slow"; },
    quick: async () => { done.push("quick"); return "quick"; },
  })]);
  const client = new Client(t, host).send(rpc("v1.t.slow") + rpc("v1.t.quick") + rpc("v1.t.none") + rpc("v1.t.quick", "wrong"));
  await until(() => done.length === 1);
  slow.open();
  await until(() => client.statuses.length === 4);
  assert.deepEqual(client.statuses, ["200", "200", "404", "401"]);
  assert.deepEqual([...client.received.matchAll(/"result":"(\w+)"/g)].map((match) => match[1]), ["slow", "quick"]);
});

test("a connection that is cut ends all of its pipelined requests, and a stop does not wait for them", async (t) => {
  const never = gate();
  const begun: string[] = [];
  const signals: AbortSignal[] = [];
  const host = await serve(t, [
    mesh({ hang: async (ctx) => { signals.push(ctx.signal); await never.opened; } }),
    waiting({ "/a": never, "/b": never }, begun),
  ]);
  const http = new Client(t, host).send(get("/a") + get("/b") + get("/b"));
  const calls = new Client(t, host).send(rpc("v1.t.hang") + rpc("v1.t.hang"));
  await until(() => begun.length === 3 && signals.length === 2);
  http.socket.destroy();
  calls.socket.destroy();
  await until(() => signals.every(({ aborted }) => aborted));
  never.open();
  const before = performance.now();
  await host.stop();
  assert.ok(performance.now() - before < 5_000);
});

const upgrade = (path: string, protocol: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: ${protocol}\r\n\r\n`;

test("an upgrade that is sent ahead waits for the answers before it, whether it is taken or not", async (t) => {
  const slow = gate();
  const begun: string[] = [];
  const host = await serve(t, [echo, waiting({ "/slow": slow }, begun)]);
  const taken = new Client(t, host).send(get("/slow") + upgrade("/", "echo") + "hello");
  const passed = new Client(t, host).send(get("/slow") + upgrade("/plain", "h2c") + get("/next"));
  const cut = new Client(t, host).send(get("/slow") + upgrade("/", "echo"));
  await until(() => begun.length === 3);
  cut.socket.destroy();
  slow.open();
  await until(() => taken.received.endsWith("hello") && passed.statuses.length === 3);
  assert.deepEqual([taken.statuses, passed.statuses], [["200", "101"], ["200", "200", "200"]]);
  assert.deepEqual([...passed.received.matchAll(/^\/\w+/gm)].map(String), ["/slow", "/plain", "/next"]);
});

test("an error that throws when it is looked at ends its request, and harms nobody", async (t) => {
  const host = await serve(t, [route("odd", (request) => {
    if (new URL(request.url).pathname !== "/odd") return null;
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    throw proxy;
  })]);
  const client = new Client(t, host).send(get("/odd"));
  await until(() => client.closed);
  assert.equal((await fetch(`${host.url as string}/livez`)).status, 200);
});

test("a client that sends a body over the limit, and goes on sending, gets its answer", async (t) => {
  const host = await serve(t, [route("read", async (request) => new Response(String((await request.arrayBuffer()).byteLength)))], { server: { port: 0, maxBodyBytes: 1000 } });
  const chunk = `${MEGABYTE.toString(16)}\r\n${"x".repeat(MEGABYTE)}\r\n`;
  const client = new Client(t, host).send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
  for (let i = 0; i < 30; i++) client.send(chunk);
  await until(() => client.received.includes("PAYLOAD_TOO_LARGE"));
  assert.deepEqual(client.statuses, ["413"]);
  await until(() => client.closed);
});

const unwanted: readonly [string, string, string][] = [
  ["announced, without a token", `POST ${RPC} HTTP/1.1\r\nhost: x\r\ncontent-length: ${100 * MEGABYTE}\r\n\r\n`, "401"],
  ["without an end, without a token", `POST ${RPC} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n${(100 * MEGABYTE).toString(16)}\r\n`, "401"],
  ["announced, with a token", `POST ${RPC} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: t0ken\r\ncontent-length: ${100 * MEGABYTE}\r\n\r\n`, "413"],
  ["without an end, with a token", `POST ${RPC} HTTP/1.1\r\nhost: x\r\nx-chimpbase-mesh-token: t0ken\r\ntransfer-encoding: chunked\r\n\r\n${(100 * MEGABYTE).toString(16)}\r\n`, "413"],
];

test("a hundred megabytes that nobody wants are neither read nor kept", async (t) => {
  const host = await serve(t, [mesh({})]);
  for (const [what, head, status] of unwanted) await t.test(what, async () => {
    const client = new Client(t, host).send(head);
    const garbage = Buffer.alloc(MEGABYTE, "x");
    const before = process.memoryUsage().rss;
    let taken = 0;
    const pump = (): void => {
      if (client.closed || taken === 100) return;
      client.socket.write(garbage, (error) => { if (error === undefined || error === null) { taken++; pump(); } });
    };
    pump();
    await until(() => client.closed);
    assert.deepEqual(client.statuses, [status]);
    // What the kernel's buffers of both sides hold has left the client, but not reached the node.
    assert.ok(taken < 50, `${taken} MB`);
    assert.ok(process.memoryUsage().rss - before < 80 * MEGABYTE);
  });
});

const smuggled: readonly [string, string][] = [
  ["two different lengths", "content-length: 2\r\ncontent-length: 40\r\n\r\n{}"],
  ["one length twice", "content-length: 2\r\ncontent-length: 2\r\n\r\n{}"],
  ["a list of lengths", "content-length: 2, 2\r\n\r\n{}"],
  ["a length with a sign", "content-length: +2\r\n\r\n{}"],
  ["length and chunks", "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
  ["chunks that are not the last coding", "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"],
  ["white space before the colon", "content-length : 2\r\n\r\n{}"],
  ["a bare line feed in a header", "x-a: b\ncontent-length: 2\r\n\r\n{}"],
];

test("a request whose end is in doubt is refused, and nothing that follows is taken for another", async (t) => {
  const host = await serve(t, [mesh({}), route("any", () => new Response("reached"))]);
  for (const [what, rest] of smuggled) await t.test(what, async () => {
    const client = new Client(t, host).send(`POST / HTTP/1.1\r\nhost: x\r\n${rest}${get("/next")}`);
    await until(() => client.closed);
    assert.deepEqual(client.statuses, ["400"]);
  });
});

test("a head that does not end is cut off, and so is a request that is over its time", async (t) => {
  const host = await serve(t, [route("read", async (request) => new Response(await request.text()))], { server: { port: 0, requestTimeoutMs: 1_000 } });
  const endless = new Client(t, host).send(`GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(100_000)}`);
  const slowHead = new Client(t, host).send("GET / HTTP/1.1\r\nhost: x\r\n");
  const slowBody = new Client(t, host).send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nx");
  await until(() => endless.closed && slowHead.closed && slowBody.closed, { timeoutMs: 8_000 });
  assert.deepEqual([endless.statuses, slowHead.statuses], [["431"], ["408"]]);
});

test("what a route takes from a request into a header of its answer cannot break out of it", async (t) => {
  const host = await serve(t, [route("echo", (request) => {
    const value = new URL(request.url).searchParams.get("v") ?? "";
    return new Response(null, { headers: { location: `/${value}` } });
  })]);
  const client = new Client(t, host).send(get("/?v=a%0d%0aset-cookie:%20b=c%0d%0a%0d%0aHTTP/1.1%20200%20"));
  await until(() => client.statuses.length > 0);
  assert.deepEqual(client.statuses, ["500"]);
  assert.doesNotMatch(client.received, /set-cookie/i);
});

test("once a stop hook runs, no request is taken in any more", async (t) => {
  const begun: string[] = [];
  const gates: string[] = [];
  let url = "";
  const host = await serve(t, [
    waiting({}, begun),
    onStop(async () => { gates.push(await fetch(url).then(({ status }) => String(status), () => "refused")); }),
  ]);
  url = `${host.url as string}/late`;
  const idle = new Client(t, host).send(get("/idle"));
  await until(() => idle.statuses.length === 1);
  await host.stop();
  assert.deepEqual([gates, begun], [["503"], ["/idle"]]);
  assert.equal(idle.closed, true);
});

test("the body of a request that is answered is dropped up to the longest body: an endless one costs its connection", async (t) => {
  const host = await serve(t, [route("closed", () => new Response("no", { status: 401 }))], { server: { port: 0, maxBodyBytes: 100_000 } });
  const small = new Client(t, host).send(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n${"x".repeat(50_000)}${get("/")}`);
  await until(() => small.statuses.length === 2);

  const endless = new Client(t, host).send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
  const chunk = `10000\r\n${"x".repeat(0x10000)}\r\n`;
  const pump = (): void => void (endless.closed || endless.socket.write(chunk, () => setImmediate(pump)));
  pump();
  await until(() => endless.closed, { timeoutMs: 3_000 });
  assert.deepEqual(endless.statuses, ["401"]);
});

test("upgrades that nobody takes leave nothing behind on their connection", async (t) => {
  const warnings: Error[] = [];
  const note = (warning: Error): void => void warnings.push(warning);
  process.on("warning", note);
  t.after(() => process.off("warning", note));
  const host = await serve(t, [echo, route("plain", () => new Response("plain"))]);
  const client = new Client(t, host);
  for (let n = 1; n <= 15; n++) {
    client.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
    await until(() => client.statuses.length === n);
  }
  assert.deepEqual(warnings, []);
});
