import assert from "node:assert/strict";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { after, before, test, type TestContext } from "node:test";
import { MeshConfigurationError, MeshError, MeshOverloadedError } from "@chimpbase/mesh";
import type { Storage } from "#mesh/contract/storage.js";
import { openPostgres, type PostgresOptions } from "#mesh/storage/postgres.js";
import { createEmptyDatabase, withAdmin, type TestDatabase } from "../support/database.js";
import { silentLog } from "../support/log.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

let database: TestDatabase;
before(async () => void (database = await createEmptyDatabase()));
after(() => database.drop());

async function open(t: TestContext, options: Partial<PostgresOptions> = {}): Promise<Storage> {
  const storage = await openPostgres({ url: database.url, log: silentLog, ...options });
  t.after(() => storage.close());
  return storage;
}

async function pidOf(storage: Storage): Promise<number> {
  const [row] = await storage.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  return row!.pid;
}

async function kill(pid: number): Promise<void> {
  await withAdmin((admin) => admin.query("SELECT pg_terminate_backend($1, 2000)", [pid]));
}

/** A server that answers the first words of each client with `answer`; resolves with its URL. */
async function playPostgres(t: TestContext, answer: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => socket.on("error", () => undefined).once("data", () => answer(socket)));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return `postgres://u:p@127.0.0.1:${(server.address() as AddressInfo).port}/d`;
}

/** Of the wire protocol of Postgres: type, length of what follows with itself, body. */
function message(type: string, body: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([Buffer.from(type), length, body]);
}

const code = (expected: string) => (error: unknown) => error instanceof MeshError && error.code === expected;

test("a connection that is reset while it is made means that Postgres cannot be reached, and nothing worse", async (t) => {
  const url = await playPostgres(t, (socket) => socket.resetAndDestroy());
  await assert.rejects(openPostgres({ url, log: silentLog }), (error) => code("DATABASE_UNAVAILABLE")(error) && /ECONNRESET/.test((error as Error).message));
});

test("a session that the server ends with the words that make it ready was never one", async (t) => {
  const url = await playPostgres(t, (socket) => {
    socket.end(Buffer.concat([message("R", Buffer.alloc(4)), message("Z", Buffer.from("I")), message("E", Buffer.from("SFATAL\0C57P01\0Mgoing down\0\0"))]));
  });
  await assert.rejects(openPostgres({ url, log: silentLog }), (error) => code("DATABASE_UNAVAILABLE")(error) && /going down/.test((error as Error).message));
});

test("answers with rows: bigints as strings, json parsed, timestamps as dates", async (t) => {
  const storage = await open(t);
  const [row] = await storage.query("SELECT 9007199254740993::bigint AS big, '{\"a\":[1]}'::jsonb AS json, now() AS at, $1::text AS given", ["x"]);
  assert.equal(row!["big"], "9007199254740993");
  assert.deepEqual(row!["json"], { a: [1] });
  assert.ok(row!["at"] instanceof Date);
  assert.equal(row!["given"], "x");
});

test("passes errors of the server on as they are, and keeps the connection", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const pid = await pidOf(storage);
  await assert.rejects(storage.query("SELECT 1 / 0"), { code: "22012" });
  assert.equal(await pidOf(storage), pid);
});

test("a statement with several parts answers with the rows of the last", async (t) => {
  const storage = await open(t);
  assert.deepEqual(await storage.query("SELECT 1 AS a; SELECT 2 AS b"), [{ b: 2 }]);
});

test("a transaction opened by hand does not stay on a pooled connection", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const pid = await pidOf(storage);
  await storage.query("BEGIN");
  assert.notEqual(await pidOf(storage), pid);
});

test("a connection that the pool has closed by itself does not make the server look unreachable", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const pid = await pidOf(storage);
  await storage.query("BEGIN");
  assert.equal(storage.stats().total, 0);
  await until(() => withAdmin(async (admin) => (await admin.query("SELECT FROM pg_stat_activity WHERE pid = $1", [pid])).rowCount === 0));
  await new Promise(setImmediate);
  assert.equal(storage.stats().reachable, true);
});

test("a full pool fails within the limit, naming the pool's size and the wait", async (t) => {
  const storage = await open(t, { poolSize: 2 });
  const busy = [storage.begin(), storage.begin()];
  const held = await Promise.all(busy);
  const start = performance.now();
  await assert.rejects(storage.query("SELECT 1", [], { acquireTimeoutMs: 100 }), (error) => {
    assert.ok(error instanceof MeshOverloadedError);
    assert.match(error.message, /all 2 connections .* 100 ms/);
    return true;
  });
  assert.ok(performance.now() - start < 1_000);
  const waiting = storage.query("SELECT 1 AS one");
  assert.equal(storage.stats().waiting, 1);
  await held[0]!.rollback();
  assert.deepEqual(await waiting, [{ one: 1 }]);
  await held[1]!.rollback();
});

test("the 10001st that waits for a connection is refused at once, naming the limit; the others get theirs", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const held = await storage.begin();
  const waiting = Array.from({ length: 10_000 }, () => storage.query("SELECT 1", [], { acquireTimeoutMs: 60_000 }));
  await assert.rejects(storage.query("SELECT 1", [], { acquireTimeoutMs: 60_000 }), (error) => error instanceof MeshOverloadedError && /10000 .*database\.poolSize/.test(error.message));
  await held.rollback();
  assert.equal((await Promise.all(waiting)).length, 10_000);
});

test("never opens more connections than the pool's size", async (t) => {
  const storage = await open(t, { poolSize: 3 });
  const pids = await Promise.all(Array.from({ length: 30 }, () => pidOf(storage)));
  assert.ok(new Set(pids).size <= 3);
  assert.ok(storage.stats().total <= 3);
});

test("where the server has no slot left, the connections there are serve all; who gets none learns why", async (t) => {
  const role = `mesh_limited_${database.url.slice(-12)}`;
  await withAdmin((admin) => admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'limited' CONNECTION LIMIT 2`));
  t.after(() => withAdmin((admin) => admin.query(`DROP ROLE ${role}`)));
  const url = new URL(database.url);
  url.username = role;
  url.password = "limited";
  const storage = await openPostgres({ url: url.href, log: silentLog });
  const pids = await Promise.all(Array.from({ length: 50 }, () => pidOf(storage)));
  assert.ok(new Set(pids).size <= 2);
  const held = await Promise.all([storage.begin(), storage.begin()]);
  await assert.rejects(storage.query("SELECT 1", [], { acquireTimeoutMs: 200 }), (error) => code("DATABASE_UNAVAILABLE")(error) && /too many connections/.test((error as Error).message));
  for (const tx of held) await tx.rollback();
  await storage.close();
});

test("a connection killed while idle costs no query and no process", async (t) => {
  const storage = await open(t, { poolSize: 2 });
  for (let i = 0; i < 5; i++) {
    await kill(await pidOf(storage));
    assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
  }
  assert.equal(storage.stats().reachable, true);
});

test("a connection killed while the process was busy costs no query either", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const victim = await pidOf(storage);
  await withAdmin(async (admin) => {
    const done = admin.query("SELECT pg_terminate_backend($1)", [victim]);
    // The question leaves; the event loop reads neither its answer nor the goodbye of the server meanwhile.
    await new Promise((resolve) => setImmediate(resolve));
    const end = performance.now() + 500;
    while (performance.now() < end);
    assert.notEqual(await pidOf(storage), victim);
    await done;
  });
});

test("a connection killed during a query fails that query as unavailable, retryable, and no other", async (t) => {
  const storage = await open(t, { poolSize: 2 });
  const [row] = await storage.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  const sleeping = storage.query("SELECT pg_sleep(30)");
  const failed = assert.rejects(sleeping, (error) => code("DATABASE_UNAVAILABLE")(error) && (error as MeshError).retryable);
  await kill(row!.pid);
  await failed;
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
});

test("of two statements sent together each is a transaction of its own, the second after the first, and executed whatever became of that", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  await storage.query("CREATE TABLE pairs (n INT)");
  const insert = (n: number | string) => ({ sql: "INSERT INTO pairs VALUES ($1) RETURNING n", params: [n] });
  const { rows: first, next } = await storage.queryThen(insert(1), { sql: "INSERT INTO pairs SELECT max(n) + 1 FROM pairs", params: [] });
  assert.deepEqual(first, [{ n: 1 }]);
  await next;
  await assert.rejects(storage.queryThen(insert("x"), insert(3)), { code: "22P02" });
  const { rows: kept, next: failed } = await storage.queryThen(insert(4), { sql: "SELECT 1 / 0", params: [] });
  assert.deepEqual(kept, [{ n: 4 }]);
  await assert.rejects(failed, { code: "22012" });
  const unsendable = { sql: "SELECT $1", params: [{ toPostgres: () => { throw new Error("cannot be sent"); } }] };
  for (const [first, next] of [[unsendable, insert(5)], [insert(5), unsendable]] as const) await assert.rejects(storage.queryThen(first, next), /cannot be sent/);
  const rows = await storage.query("SELECT n, count(*) OVER (PARTITION BY xmin::text)::int AS together FROM pairs ORDER BY n");
  assert.deepEqual(rows, [1, 2, 3, 4].map((n) => ({ n, together: 1 })));
  assert.deepEqual(storage.stats(), { total: 1, idle: 1, waiting: 0, reachable: true });
});

test("two statements sent together reach the server at once, before it has answered the first", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const storage = await open(t, { url: relay.url, poolSize: 1 });
  const sent: string[] = [];
  relay.cutWhen = (data) => (sent.push(data.toString("latin1")), false);
  const { next } = await storage.queryThen({ sql: "SELECT 'first'", params: [] }, { sql: "SELECT 'second'", params: [] });
  await next;
  assert.deepEqual(sent.map((data) => data.match(/first|second/g)), [["first", "second"]]);
});

test("a connection lost under the first of two statements, or the second, fails that one, and frees its place in the pool", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const quick = { sql: "SELECT 1 AS one", params: [] };
  const sleeping = (answerTimeoutMs: number) => ({ sql: "SELECT pg_sleep(30)", params: [], answerTimeoutMs });
  const ways = [{ slow: sleeping(20_000), end: kill, says: /was lost/ }, { slow: sleeping(200), end: async () => undefined, says: /within 200 ms/ }];
  for (const { slow, end, says } of ways) {
    const lost = (answer: Promise<unknown>) => assert.rejects(answer, (error) => code("DATABASE_UNAVAILABLE")(error) && says.test((error as Error).message));
    const pid = await pidOf(storage);
    const first = lost(storage.queryThen(slow, quick));
    await end(pid);
    await first;
    const nextPid = await pidOf(storage);
    const { rows, next } = await storage.queryThen(quick, slow);
    assert.deepEqual(rows, [{ one: 1 }]);
    const second = lost(next);
    await end(nextPid);
    await second;
  }
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
});

test("two statements after one that was refused, on the same connection, draw no warning of the driver's", async (t) => {
  const storage = await open(t, { poolSize: 1 });
  const warnings: string[] = [];
  const warned = ({ message }: Error): void => void warnings.push(message);
  process.on("warning", warned);
  t.after(() => process.off("warning", warned));
  for (let round = 0; round < 50; round++) {
    const refused = storage.query("SELECT 1 / 0").catch(() => storage.queryThen({ sql: "SELECT 1", params: [] }, { sql: "SELECT 2", params: [] }));
    await (await refused as { next: Promise<void> }).next;
  }
  assert.deepEqual(warnings, []);
});

test("an unreachable server is a coded error, at open and later, and connections come back", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const storage = await open(t, { url: relay.url });
  await relay.cut();
  await assert.rejects(storage.query("SELECT 1"), code("DATABASE_UNAVAILABLE"));
  assert.equal(storage.stats().reachable, false);
  await assert.rejects(openPostgres({ url: relay.url, log: silentLog }), code("DATABASE_UNAVAILABLE"));
  await relay.open();
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
  assert.equal(storage.stats().reachable, true);
});

test("a server that accepts and never answers is unavailable at the caller's limit", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const storage = await open(t, { url: relay.url, poolSize: 2 });
  await kill(await pidOf(storage));
  await until(() => storage.stats().total === 0);
  relay.freeze();
  const start = performance.now();
  await assert.rejects(storage.query("SELECT 1", [], { acquireTimeoutMs: 150 }), code("DATABASE_UNAVAILABLE"));
  assert.ok(performance.now() - start < 1_000);
  relay.thaw();
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
});

test("a connection gone silent fails its query at the limit, and frees its place in the pool", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const storage = await open(t, { url: relay.url, poolSize: 1 });
  await storage.query("SELECT 1");
  relay.freeze();
  const start = performance.now();
  await assert.rejects(storage.query("SELECT 1", [], { answerTimeoutMs: 150 }), (error) => {
    assert.match((error as Error).message, /not answered within 150 ms; the query may have been executed/);
    return code("DATABASE_UNAVAILABLE")(error) && (error as MeshError).retryable;
  });
  assert.ok(performance.now() - start < 1_000);
  assert.equal(storage.stats().total, 0);
  relay.thaw();
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
});

test("a statement given up before it reached the server is not executed when the network is back", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const storage = await open(t, { url: relay.url, poolSize: 1 });
  await storage.query("CREATE TABLE late (n INT)");
  relay.freeze();
  await assert.rejects(storage.query("INSERT INTO late VALUES (1)", [], { answerTimeoutMs: 50 }), code("DATABASE_UNAVAILABLE"));
  relay.thaw();
  await storage.query("INSERT INTO late VALUES (2)");
  const backends = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'chimpbase-mesh'";
  await until(async () => (await storage.query(backends)).length === 1);
  assert.deepEqual(await storage.query("SELECT n FROM late"), [{ n: 2 }]);
});

test("a statement past its limit does not run on in the server", async (t) => {
  const storage = await open(t, { applicationName: "slow" });
  await assert.rejects(storage.query("SELECT pg_sleep(60)", [], { answerTimeoutMs: 100 }), code("DATABASE_UNAVAILABLE"));
  const running = "SELECT FROM pg_stat_activity WHERE application_name = 'slow' AND query LIKE 'SELECT pg_sleep%'";
  await until(async () => (await storage.query(running)).length === 0);
});

test("without a limit, and with one longer than timers can be, a statement takes its time", async (t) => {
  const storage = await open(t);
  for (const answerTimeoutMs of [Infinity, 2 ** 40]) {
    assert.deepEqual(await storage.query("SELECT 1 AS one FROM pg_sleep(0.05)", [], { answerTimeoutMs }), [{ one: 1 }]);
  }
});

test("wrong options are named, and passwords never shown", async () => {
  const wrong: [Partial<PostgresOptions>, RegExp][] = [
    [{ url: "not a url s3cret" }, /^database\.url is not a URL/],
    [{ url: "mysql://u:s3cret@h/d" }, /^database\.url begins with "mysql:"/],
    [{ url: "postgres://u:s3cret%zz@h/d" }, /^database\.url .*percent-encoded/],
    [{ listenUrl: "http://u:s3cret@h/d" }, /^database\.listenUrl begins with "http:"/],
    [{ poolSize: 0 }, /^database\.poolSize is 0/],
    [{ poolSize: 1.5 }, /^database\.poolSize is 1\.5/],
    [{ schema: 'a"b' }, /^database\.schema is "a\\"b"/],
    [{ schema: "pg_mine" }, /^database\.schema is "pg_mine"/],
  ];
  for (const [options, message] of wrong) {
    await assert.rejects(openPostgres({ url: database.url, log: silentLog, ...options }), (error) => {
      assert.ok(error instanceof MeshConfigurationError);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /s3cret/);
      return true;
    });
  }
});

test("a database that does not exist is a configuration error", async () => {
  const url = new URL(database.url);
  url.pathname = "/mesh_no_such_database";
  await assert.rejects(openPostgres({ url: url.href, log: silentLog }), (error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, /^database\.url: .*mesh_no_such_database/);
    return true;
  });
});

test("creates its schema, whoever is first", async (t) => {
  const schema = "Mixed-Case";
  const storages = await Promise.all(Array.from({ length: 8 }, () => open(t, { schema, poolSize: 1 })));
  const [storage] = storages;
  assert.equal(storage!.schema, schema);
  assert.equal(storage!.table("jobs"), '"Mixed-Case"."jobs"');
  await storage!.query(`CREATE TABLE ${storage!.table("t")} (a INT)`);
  assert.deepEqual(await storages[1]!.query(`SELECT * FROM ${storages[1]!.table("t")}`), []);
});

test("channels differ for each schema and fit into 63 bytes", async (t) => {
  const [one, other] = await Promise.all([open(t, { schema: "a" }), open(t, { schema: "a".repeat(63) })]);
  const names = ["events", "events2", "x".repeat(200), "é"].flatMap((name) => [one.channel(name), other.channel(name)]);
  assert.equal(new Set(names).size, names.length);
  for (const name of names) assert.ok(Buffer.byteLength(name) <= 63);
});

test("close lets queries under way finish, refuses new ones, and leaves no connection", async () => {
  const storage = await openPostgres({ url: database.url, log: silentLog, applicationName: "closing" });
  const slow = storage.query("SELECT pg_sleep(0.2), 1 AS one");
  await until(() => storage.stats().total === 1);
  const closing = storage.close();
  await assert.rejects(storage.query("SELECT 1"), code("DATABASE_UNAVAILABLE"));
  assert.equal((await slow)[0]!["one"], 1);
  await closing;
  assert.equal(storage.stats().total, 0);
  await storage.close();
});

test("close fails those who wait for a connection", async () => {
  const storage = await openPostgres({ url: database.url, log: silentLog, poolSize: 1 });
  const tx = await storage.begin();
  const waiting = assert.rejects(storage.query("SELECT 1"), code("DATABASE_UNAVAILABLE"));
  const closing = storage.close();
  await waiting;
  await tx.rollback();
  await closing;
});
