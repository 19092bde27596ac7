import assert from "node:assert/strict";
import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { MeshConfigurationError, MeshError, action, chimpbaseMesh, createHost, service } from "@chimpbase/mesh";
import type { Storage } from "#mesh/contract/storage.js";
import { serverAccount } from "#mesh/storage/embedded-account.js";
import { startEmbedded, type EmbeddedPostgres } from "#mesh/storage/embedded.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createAuthority, expired, type Issued } from "../support/certificates.js";
import { memoryLog, silentLog } from "../support/log.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

const authority = createAuthority();
const own = authority.issue({ names: ["db.internal"], addresses: ["127.0.0.1"] });
const CANCEL_CODE = Buffer.from([0x04, 0xd2, 0x16, 0x2e]);
const TLS_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

let directory: string;
let server: EmbeddedPostgres;
const warnings: string[] = [];
const onWarning = (warning: Error): void => void warnings.push(warning.message);

/** The server runs as somebody else where we are root, and wants its key readable by itself alone. */
async function writePair({ cert, key }: Issued): Promise<void> {
  const account = await serverAccount();
  await writeFile(join(directory, "server.pem"), cert);
  await writeFile(join(directory, "server.key"), key, { mode: 0o600 });
  if (account !== null) await chown(join(directory, "server.key"), account.uid, account.gid);
}

before(async () => {
  process.on("warning", onWarning);
  directory = await mkdtemp(join(tmpdir(), "mesh-postgres-tls-test-"));
  await chmod(directory, 0o755);
  await Promise.all([
    writePair(own),
    writeFile(join(directory, "ca.pem"), authority.ca),
    writeFile(join(directory, "other-ca.pem"), createAuthority("other").ca),
  ]);
  server = await startEmbedded(true, silentLog, { ssl: "on", ssl_cert_file: join(directory, "server.pem"), ssl_key_file: join(directory, "server.key") });
});
after(async () => {
  process.off("warning", onWarning);
  await server.stop();
  await rm(directory, { recursive: true });
});

/** `url` with what TLS needs, from the CA of the file `ca`. */
function secured(url: string, ca = "ca.pem"): string {
  const given = new URL(url);
  given.searchParams.set("sslmode", "verify-full");
  given.searchParams.set("sslrootcert", join(directory, ca));
  return given.href;
}

async function open(t: TestContext, url = secured(server.url), log = silentLog): Promise<Storage> {
  const storage = await openPostgres({ url, log, poolSize: 3 });
  t.after(() => storage.close());
  return storage;
}

interface Session extends Record<string, unknown> {
  readonly pid: number;
  readonly ssl: boolean;
  readonly name: string;
}

const sessions = (storage: Storage): Promise<Session[]> =>
  storage.query<Session>("SELECT pid, ssl, application_name AS name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'chimpbase-mesh%'");

const endSession = (storage: Storage, pid: number): Promise<unknown> => storage.query("SELECT pg_terminate_backend($1)", [pid]);

interface Heard {
  readonly payloads: string[];
  connected: number;
}

async function listen(storage: Storage): Promise<Heard> {
  const heard: Heard = { payloads: [], connected: 0 };
  await storage.listen([storage.channel("a")], {
    onNotify: (_channel, payload) => void heard.payloads.push(payload),
    onConnected: () => void heard.connected++,
    onDisconnected: () => undefined,
  });
  return heard;
}

const say = (storage: Storage, payload: string): Promise<unknown> => storage.query("SELECT pg_notify($1, $2)", [storage.channel("a"), payload]);

test("queries, transactions and LISTEN go over TLS, and come back over it after their connections were ended", async (t) => {
  const storage = await open(t);
  const heard = await listen(storage);
  const sum = await storage.transaction(async (tx) => {
    await tx.query("CREATE TEMPORARY TABLE numbers ON COMMIT DROP AS SELECT generate_series(1, $1::int) AS n", [1000]);
    return tx.query<{ sum: string }>("SELECT sum(n) FROM numbers");
  });
  assert.equal(sum[0]?.sum, "500500");
  await say(storage, "first");
  await until(() => heard.payloads.includes("first"));
  const before = await sessions(storage);
  assert.ok(before.some(({ name }) => name.endsWith("-listen")) && before.every(({ ssl }) => ssl), JSON.stringify(before));

  const admin = await open(t);
  for (const { pid } of before) await endSession(admin, pid);
  await until(() => heard.connected === 2);
  await until(() => say(storage, "second").then(() => heard.payloads.includes("second"), () => false));
  const now = await sessions(storage);
  assert.ok(now.every(({ ssl, pid }) => ssl && before.every((old) => old.pid !== pid)), JSON.stringify(now));
  assert.deepEqual(warnings.filter((text) => /ssl/i.test(text)), []);
});

test("a statement that is over its time is cancelled over TLS: neither it nor the key of the request can be read on the way", async (t) => {
  const relay = await relayTo(server.url);
  const storage = await openPostgres({ url: secured(relay.url), log: silentLog });
  t.after(async () => {
    await storage.close();
    await relay.close();
  });
  const sent: Buffer[] = [];
  relay.rewrite = (chunk) => {
    sent.push(chunk);
    return chunk;
  };
  await assert.rejects(storage.query("SELECT pg_sleep(100) /* over its time */", [], { answerTimeoutMs: 300 }), { code: "DATABASE_UNAVAILABLE" });
  const running = (): Promise<unknown[]> => storage.query("SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%over its ' || 'time%'");
  await until(async () => (await running()).length === 0);
  assert.ok(sent.some((chunk) => chunk.equals(TLS_REQUEST)));
  assert.ok(!sent.some((chunk) => chunk.includes(CANCEL_CODE) || chunk.includes("pg_sleep")));
});

test("a connection that is given up is reset beneath its encryption, so that what was not delivered is dropped", async (t) => {
  const { port } = new URL(server.url);
  const ends: string[] = [];
  const proxy = createServer((client) => {
    const upstream = connect(Number(port), "127.0.0.1").on("error", () => undefined);
    client.pipe(upstream).pipe(client);
    client.on("end", () => ends.push("end")).on("error", ({ code }: NodeJS.ErrnoException) => {
      ends.push(code ?? "");
      upstream.destroy();
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => proxy.once("listening", resolve));
  const url = new URL(secured(server.url));
  url.port = String((proxy.address() as AddressInfo).port);
  const storage = await openPostgres({ url: url.href, log: silentLog, poolSize: 1 });
  t.after(async () => {
    await storage.close();
    proxy.close();
  });
  await storage.query("SELECT 1");
  await assert.rejects(storage.query("SELECT pg_sleep(100)", [], { answerTimeoutMs: 300 }), { code: "DATABASE_UNAVAILABLE" });
  await until(() => ends.includes("ECONNRESET"));
});

function refusal(message: RegExp, url: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof MeshConfigurationError, String(error));
    assert.match(error.message, message);
    assert.ok(!error.message.includes(new URL(url).password));
    return true;
  };
}

test("a server with a certificate of another CA is refused, with the file that decides", async (t) => {
  const url = secured(server.url, "other-ca.pem");
  await assert.rejects(open(t, url), refusal(/^database\.url: the certificate of Postgres is refused \((UNABLE|SELF)_\w+\): .*sslrootcert/, url));
});

test("a server whose certificate names another host is refused", async (t) => {
  const url = secured(server.url.replace("127.0.0.1", "localhost"));
  await assert.rejects(open(t, url), refusal(/^database\.url: .*\(ERR_TLS_CERT_ALTNAME_INVALID\): .*Host: localhost\. is not in the cert's altnames: DNS:db\.internal/, url));
});

test("a file of a CA that cannot be read is refused by name", async (t) => {
  const url = secured(server.url, "none.pem");
  await assert.rejects(open(t, url), refusal(/^database\.url: a file that sslrootcert, .* cannot be read: ENOENT.*none\.pem/, url));
});

test("a server that offers no TLS is refused, and never sent the password", async (t) => {
  const received: Buffer[] = [];
  const plain = createServer((socket) => socket.on("error", () => undefined).on("data", (chunk) => {
    received.push(chunk);
    socket.write("N");
  })).listen(0, "127.0.0.1");
  await new Promise((resolve) => plain.once("listening", resolve));
  t.after(() => plain.close());
  const url = secured(`postgres://me:s3cret@127.0.0.1:${(plain.address() as AddressInfo).port}/db`);
  await assert.rejects(open(t, url), refusal(/^database\.url: Postgres does not offer TLS, which sslmode/, url));
  assert.deepEqual(Buffer.concat(received), TLS_REQUEST);
});

/** The server shows this certificate to whoever connects from here on. */
async function install(pair: Issued): Promise<void> {
  await writePair(pair);
  const plain = await openPostgres({ url: server.url, log: silentLog });
  await plain.query("SELECT pg_reload_conf()");
  await plain.close();
}

test("a certificate that expires while the host runs is said aloud, once in an outage; with a new one all goes on", async (t) => {
  t.after(() => install(own));
  const { log, lines } = memoryLog();
  const storage = await open(t, secured(server.url), log);
  const heard = await listen(storage);
  const loud = () => lines.filter(({ level }) => level >= 40).map(({ msg }) => msg);
  const plain = await open(t, server.url);
  await install(authority.issue({ addresses: ["127.0.0.1"], valid: expired() }));
  const reloaded = () => openPostgres({ url: secured(server.url), log: silentLog }).then((opened) => opened.close().then(() => false), () => true);
  await until(reloaded);
  for (const { pid, ssl } of await sessions(plain)) if (ssl) await endSession(plain, pid);
  await until(() => loud().length > 0);
  await assert.rejects(storage.query("SELECT 1"), refusal(/CERT_HAS_EXPIRED/, server.url));
  const tries = (): number => lines.filter(({ msg }) => msg === "the LISTEN connection cannot be made yet").length;
  await until(() => tries() >= 3);
  assert.equal(loud().length, 1);
  assert.match(loud()[0] ?? "", /^database\.listenUrl: the certificate of Postgres is refused \(CERT_HAS_EXPIRED\)/);
  await install(own);
  await until(() => heard.connected === 2, { timeoutMs: 15_000 });
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
});

test("a host runs over TLS: services, events and jobs; where the CA is wrong it does not start, and no log line holds the password", async () => {
  const lines: string[] = [];
  const got: unknown[] = [];
  const make = (url: string) => createHost({ database: url, server: false, logger: { level: "debug", write: (line) => void lines.push(line) } }).register(
    action("noop", () => undefined),
    chimpbaseMesh({ transport: "local-only", services: [service({ name: "t", events: { "all.x": (_ctx, n) => void got.push(n), "one.x": { balanced: true, handler: (_ctx, n) => void got.push(n) } } })] }),
  );
  const host = make(secured(server.url));
  await host.start();
  await host.mesh.emit("all.x", 1);
  await host.mesh.emit("one.x", 2);
  await until(() => got.length === 2);
  await host.stop();
  await assert.rejects(make(secured(server.url, "other-ca.pem")).start(), (error) => error instanceof MeshError && error.code === "CONFIGURATION");
  assert.deepEqual(lines.filter((line) => line.includes(new URL(server.url).password)), []);
});
