import assert from "node:assert/strict";
import { Agent, request } from "node:https";
import { connect as connectTcp, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { onStop, route, type Host, type HostOptions, type Registration } from "@chimpbase/mesh";
import { createNodeServer } from "#mesh/runtime/node-server.js";
import { createAuthority } from "../support/certificates.js";
import { makeHost, type LogLine } from "../support/host.js";
import { memoryLog, silentLog } from "../support/log.js";
import { echoUpgrade as echo } from "../support/upgrade.js";
import { until } from "../support/wait.js";

const authority = createAuthority();
const stranger = createAuthority("stranger");
const own = authority.issue();
const { ca } = authority;

interface Served {
  readonly host: Host;
  readonly port: number;
  readonly lines: readonly LogLine[];
}

async function serve(t: TestContext, registrations: Registration[] = [], tls: { ca?: string } = {}): Promise<Served> {
  const { log, lines } = memoryLog();
  const { host } = await makeHost(t, { server: { port: 0, tls: { ...own, ...tls } }, logger: log } as HostOptions);
  host.register(...registrations, route("hello", (asked) => new Response(asked.url)));
  await host.start();
  return { host, port: Number(new URL(host.url ?? "").port), lines };
}

class Client {
  received = "";
  closed = false;
  failure: NodeJS.ErrnoException | undefined;
  readonly socket: Socket;

  constructor(t: TestContext, socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk) => (this.received += String(chunk))).on("close", () => (this.closed = true));
    socket.on("error", (error) => (this.failure = error));
    t.after(() => socket.destroy());
  }

  static tls(t: TestContext, port: number, options: ConnectionOptions = {}): Client {
    return new Client(t, connect({ port, host: "127.0.0.1", ca, servername: "localhost", ...options }));
  }

  static tcp(t: TestContext, port: number): Client {
    return new Client(t, connectTcp(port, "127.0.0.1"));
  }

  send(text: string): this {
    this.socket.write(text);
    return this;
  }

  get statuses(): string[] {
    return [...this.received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => match[1] as string);
  }
}

const get = (path: string, more = ""): string => `GET ${path} HTTP/1.1\r\nhost: localhost\r\n${more}\r\n`;

interface Answer {
  readonly text: string;
  readonly reused: boolean;
}

function ask(port: number, agent: Agent): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, host: "localhost", family: 4, ca, agent }, (response) => {
      let text = "";
      response.on("data", (chunk) => (text += String(chunk))).on("error", reject).on("end", () => resolve({ text, reused: asked.reusedSocket }));
    });
    asked.on("error", reject).end();
  });
}

test("a host with server.tls is bound to https, serves it with a verified name, and keeps connections", async (t) => {
  const { host, port } = await serve(t);
  assert.match(host.url ?? "", /^https:\/\/127\.0\.0\.1:\d+$/);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const answers = [await ask(port, agent), await ask(port, agent), await ask(port, agent)];
  assert.deepEqual(answers.map(({ reused }) => reused), [false, true, true]);
  assert.equal(answers[0]?.text, `https://localhost:${port}/`);
});

test("requests that are sent ahead on one connection are answered in order", async (t) => {
  const { port } = await serve(t);
  const client = Client.tls(t, port).send(get("/1") + get("/2") + get("/3"));
  await until(() => client.statuses.length === 3);
  assert.deepEqual([...client.received.matchAll(/localhost\/(\d)/g)].map((match) => match[1]), ["1", "2", "3"]);
});

test("a client that speaks plain HTTP, or garbage, or leaves within the handshake harms nobody", async (t) => {
  const { port, lines } = await serve(t);
  const plain = Client.tcp(t, port).send(get("/"));
  const garbage = Client.tcp(t, port).send("\x16\x03\x01\xff\xff".padEnd(600, "x"));
  const leaving = Client.tcp(t, port);
  await until(() => !leaving.socket.connecting);
  leaving.socket.resetAndDestroy();
  await until(() => plain.closed && garbage.closed);
  assert.deepEqual(plain.statuses, []);
  const failed = (): LogLine[] => lines.filter(({ msg }) => msg === "a TLS handshake failed");
  await until(() => failed().length >= 2);
  assert.deepEqual([...new Set(failed().map(({ level }) => level))], [20]);
  const client = Client.tls(t, port).send(get("/"));
  await until(() => client.statuses.length === 1);
  assert.deepEqual(lines.filter(({ level }) => level >= 40), []);
});

test("versions before TLS 1.2 are refused", async (t) => {
  const { port } = await serve(t);
  const client = Client.tls(t, port, { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" });
  await until(() => client.closed);
  assert.match(client.failure?.code ?? "", /PROTOCOL_VERSION/);
  const older = Client.tls(t, port, { maxVersion: "TLSv1.2" }).send(get("/"));
  await until(() => older.statuses.length === 1);
  assert.equal((older.socket as TLSSocket).getProtocol(), "TLSv1.2");
});

test("a client that does not finish its handshake is cut off", async (t) => {
  const server = createNodeServer({}, own, silentLog, 200);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const slow = Client.tcp(t, (server.address() as AddressInfo).port).send("\x16");
  await until(() => slow.closed);
});

test("a stop does not wait for a handshake that does not end", async (t) => {
  const { host, port } = await serve(t);
  const slow = Client.tcp(t, port).send("\x16");
  await until(() => !slow.socket.connecting);
  const before = performance.now();
  await host.stop();
  assert.ok(performance.now() - before < 6_000);
  await until(() => slow.closed);
});

const mutual = { ca: authority.ca };

test("with server.tls.ca a client without a certificate, or with another CA's, gets no answer; with one of this CA it does", async (t) => {
  const { port, lines } = await serve(t, [], mutual);
  const without = Client.tls(t, port).send(get("/"));
  const foreign = Client.tls(t, port, stranger.issue()).send(get("/"));
  const known = Client.tls(t, port, authority.issue({ names: ["client"] })).send(get("/"));
  await until(() => without.closed && foreign.closed && known.statuses.length === 1);
  assert.deepEqual([without.received, foreign.received, known.statuses], ["", "", ["200"]]);
  const told = lines.filter(({ msg }) => msg === "a TLS handshake failed").map((line) => JSON.stringify(line));
  for (const reason of [/did not return a certificate/, /"certificate":"UNABLE_TO_VERIFY_LEAF_SIGNATURE"/]) assert.ok(told.some((line) => reason.test(line)), told.join("\n"));
});

const upgrade = (path: string, protocol: string): string => get(path, `connection: upgrade\r\nupgrade: ${protocol}\r\n`);

test("an upgrade is taken over TLS; one that nobody offers is answered as a request, and the connection goes on", async (t) => {
  const { host, port } = await serve(t, [echo]);
  const taken = Client.tls(t, port).send(`${upgrade("/", "echo")}hello`);
  const passed = Client.tls(t, port).send(upgrade("/plain", "h2c"));
  await until(() => taken.received.endsWith("hello") && passed.statuses.length === 1);
  passed.send(get("/next") + upgrade("/again", "h2c"));
  await until(() => passed.statuses.length === 3);
  taken.send(" again");
  await until(() => taken.received.endsWith("hello again"));
  assert.deepEqual([taken.statuses, passed.statuses], [["101"], ["200", "200", "200"]]);
  await host.stop();
  await until(() => taken.closed && passed.closed);
});

test("once a stop hook runs, a request on a kept connection is answered 503, and idle connections close", async (t) => {
  const { host, port } = await serve(t, [onStop(async () => {
    late.send(get("/late"));
    await until(() => late.statuses.length === 2);
  })]);
  const late = Client.tls(t, port).send(get("/early"));
  const idle = Client.tls(t, port).send(get("/idle"));
  await until(() => late.statuses.length === 1 && idle.statuses.length === 1);
  await host.stop();
  await until(() => late.closed && idle.closed);
  assert.deepEqual([late.statuses, idle.statuses], [["200", "503"], ["200"]]);
});

test("a request that runs while the host stops is answered in full", async (t) => {
  let finish = (): void => undefined;
  let begun = false;
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const { host, port } = await serve(t, [route("slow", async (asked) => {
    if (!asked.url.endsWith("/slow")) return null;
    begun = true;
    await finished;
    return new Response("x".repeat(300_000));
  })]);
  const client = Client.tls(t, port).send(get("/slow"));
  await until(() => begun);
  const stopping = host.stop();
  finish();
  await stopping;
  await until(() => client.closed);
  assert.deepEqual(client.statuses, ["200"]);
  assert.ok(client.received.length > 300_000);
});
