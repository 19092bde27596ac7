import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { chimpbaseAuth, chimpbaseMesh, createHost, cron, onStart, service, subscription, worker } from "@chimpbase/mesh";
import type { Context, Host, MeshOptions, Registration } from "@chimpbase/mesh";
import pg from "pg";
import { createLogger } from "#mesh/logger.js";
import { EVERYTHING, EventLog } from "#mesh/runtime/event-log.js";
import { GroupPatterns } from "#mesh/runtime/group-patterns.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createDatabase, createEmptyDatabase } from "../support/database.js";
import { applyLeastPrivilege, sqlOfPage, type LeastPrivilege } from "../support/roles.js";
import { until } from "../support/wait.js";

const heard: string[] = [];

const shop = service({
  name: "shop", version: 1,
  actions: {
    order: (ctx: Context, id: string) => ctx.transaction(async (tx) => {
      await tx.db.query("INSERT INTO orders (id) VALUES (?1)", [id]);
      await tx.mesh.emit("order.placed", { id });
      await tx.queue.enqueue("mail", { id }, { delayMs: 50 });
      return ctx.mesh.nodeId();
    }),
  },
  events: {
    "order.*": { balanced: true, handler: async (ctx: Context, { id }: { id: string }) => void (await ctx.db.query("INSERT INTO paid (id) VALUES (?1)", [id])) },
    "order.doomed": { balanced: true, group: "doomed", maxAttempts: 2, retryDelayMs: 1, handler: async () => { throw new Error("doomed"); } },
  },
});
const front = service({ name: "front", version: 1, actions: { place: (ctx: Context, id: string) => ctx.mesh.call<string>("v1.shop.order", id) } });

interface Setting {
  readonly roles: LeastPrivilege;
  readonly adminUrl: string;
  host(name: string, mesh: Partial<MeshOptions>, registrations: readonly Registration[]): Host;
}

/** A database whose tables belong to the owner of the page, or to whoever migrated it before. */
async function setting(t: TestContext, empty: boolean): Promise<Setting> {
  const database = await (empty ? createEmptyDatabase() : createDatabase());
  const roles = await applyLeastPrivilege(database.url);
  const hosts: Host[] = [];
  const refused: string[] = [];
  const note = (line: string): void => void (/permission denied|42501/.test(line) && refused.push(line));
  t.after(async () => {
    await Promise.all(hosts.map((host) => host.stop()));
    await database.drop();
    await roles.drop();
    assert.deepEqual(refused, []);
  });
  const host: Setting["host"] = (name, mesh, registrations) => {
    const made = createHost({
      name, database: { url: roles.url, poolSize: 3 }, server: { port: 0 }, worker: { leaseMs: 600, retryDelayMs: 10 },
      secrets: { values: { MESH_TOKEN: "t0ken", BOOT: "b00t" } }, logger: { level: "debug", write: note },
    });
    hosts.push(made);
    return made.register(chimpbaseMesh({ services: [front], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", ...mesh }), ...registrations);
  };
  return { roles, adminUrl: database.url, host };
}

async function query<R extends pg.QueryResultRow>(url: string, sql: string): Promise<R[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return (await client.query<R>(sql).finally(() => client.end())).rows;
}

const count = async (url: string, table: string): Promise<number> => (await query<{ n: number }>(url, `SELECT count(*)::int AS n FROM ${table}`))[0]!.n;

test("two nodes do all that nodes do under the role of the page", async (t) => {
  const { roles, adminUrl, host } = await setting(t, true);
  await query(adminUrl, "CREATE TABLE orders (id text PRIMARY KEY); CREATE TABLE paid (id text)");
  await roles.grant("SELECT, INSERT ON orders, paid");
  const keys: { id: string; key: string }[] = [];
  const ticks: unknown[] = [];
  const mails: unknown[] = [];
  const a = host("a", { heartbeatMs: 200, offlineAfterMs: 30_000 }, [
    subscription("order.placed", (_ctx, payload) => void heard.push(JSON.stringify(payload))),
    cron("tick", "* * * * * *", (_ctx, tick) => void ticks.push(tick)),
  ]);
  const b = host("b", { services: [shop] }, [
    worker("mail", (_ctx, payload) => void mails.push(payload)),
    worker("slow", async (ctx) => { await ctx.db.query("SELECT pg_sleep(0.9)"); mails.push("slow"); }),
    chimpbaseAuth({ bootstrapKeySecret: "BOOT" }),
    onStart(async (ctx) => {
      keys.push(await ctx.action("__chimpbase.auth.keys.create", { name: "k" }));
      await ctx.queue.enqueue("slow", {});
    }),
  ]);
  await Promise.all([a.start(), b.start()]);
  await a.mesh.waitFor("v1.shop");
  assert.equal(await a.mesh.call("v1.front.place", "o1"), b.nodeId);
  assert.equal((await fetch(`${b.url}/none`, { headers: { "x-api-key": keys[0]!.key } })).status, 404);
  await a.mesh.emit("order.doomed", { id: "o2" });
  await until(async () => (await count(adminUrl, "paid")) === 2 && (await count(adminUrl, "_chimpbase_mesh_dead_letters")) === 1);
  await until(() => heard.includes('{"id":"o1"}') && ticks.length > 0 && mails.length === 2);
  assert.deepEqual(await b.mesh.call("v1.front.place", "o1").catch((error: { code: string }) => error.code), "23505");
  await b.stop();
  await until(() => a.mesh.peers().length === 0);
});

test("the role of the page takes over the jobs of a dead node, sweeps old rows, and checks and revokes keys", async (t) => {
  const { roles, adminUrl, host } = await setting(t, false);
  await query(adminUrl, `
    INSERT INTO _chimpbase_mesh_jobs (id, lane, queue, payload, headers, attempt)
      SELECT n, 'q:left', 'left', '{}', '{}', attempt FROM (VALUES (-1, 0), (-2, 4)) AS v(n, attempt);
    INSERT INTO _chimpbase_mesh_claims (token, holder, lease_until, ids, fences)
      VALUES (gen_random_uuid(), 'dead', clock_timestamp() - interval '1 minute', '{-1,-2}', '{0,0}');
    INSERT INTO _chimpbase_mesh_nodes (node_id, started_at_ms, last_heartbeat_ms) VALUES ('old', 1, 1);
    INSERT INTO _chimpbase_mesh_events (node_id, events, created_at) VALUES ('old', '[]', clock_timestamp() - interval '1 day')`);
  const left: unknown[] = [];
  let revoked: unknown;
  const a = host("a", {}, [
    worker("left", () => void left.push(1)),
    chimpbaseAuth({ bootstrapKeySecret: "BOOT" }),
    onStart(async (ctx) => {
      const { id } = await ctx.action<{ id: string }>("__chimpbase.auth.keys.create", { name: "k", expiresInMs: 60_000 });
      revoked = [await ctx.action("__chimpbase.auth.keys.revoke", { id }), (await ctx.action<unknown[]>("__chimpbase.auth.keys.list")).length];
    }),
  ]);
  await a.start();
  assert.deepEqual(revoked, [{ revoked: true }, 1]);
  await until(async () => left.length === 1 && (await count(adminUrl, "_chimpbase_mesh_dead_letters")) === 1);
  const storage = await openPostgres({ url: roles.url, log: createLogger({ level: "silent" }) });
  const log = new EventLog(storage, () => EVERYTHING);
  await log.collect(1_000, await log.collect(1_000, null));
  const patterns = new GroupPatterns(storage);
  await patterns.begin([{ group: "shop", pattern: "order.*", regex: null }]);
  assert.deepEqual(await patterns.adopt([{ group: "doomed", pattern: "order.doomed", regex: null }], 1), { lanes: [], full: false });
  await storage.close();
  assert.equal(await count(adminUrl, "_chimpbase_mesh_events WHERE node_id = 'old'"), 0);
  // The sweep is the cron `__chimpbase.mesh.gc`, whose tick of this minute is given back to it.
  await query(adminUrl, "UPDATE _chimpbase_mesh_crons SET last_tick_ms = last_tick_ms - 120000");
  await a.stop();
  const again = host("again", {}, []);
  await again.start();
  await until(async () => (await count(adminUrl, "_chimpbase_mesh_nodes WHERE node_id = 'old'")) === 0);
});

const FORBIDDEN: readonly string[] = [
  "CREATE TABLE mine (id int)",
  "CREATE TEMP TABLE mine (id int)",
  "CREATE SCHEMA mine",
  "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
  "CREATE EXTENSION file_fdw",
  "CREATE ROLE mine",
  "SELECT * FROM pg_authid",
  "SELECT pg_read_file('/etc/passwd')",
  "COPY _chimpbase_mesh_nodes TO PROGRAM 'cat'",
  "DROP TABLE _chimpbase_mesh_jobs",
  "TRUNCATE _chimpbase_mesh_jobs",
  "ALTER TABLE _chimpbase_mesh_jobs ADD COLUMN mine int",
  "CREATE TRIGGER mine BEFORE INSERT ON _chimpbase_mesh_jobs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
  "INSERT INTO _chimpbase_mesh_migrations (id, name) VALUES (99, 'mine')",
  "UPDATE _chimpbase_mesh_events SET events = '[]'",
  "UPDATE _chimpbase_mesh_deferred SET payload = '{}'",
  "SELECT * FROM _chimpbase_mesh_dead_letters",
  "DELETE FROM _chimpbase_mesh_dead_letters",
  "DELETE FROM _chimpbase_mesh_api_keys",
  "DELETE FROM _chimpbase_mesh_groups",
  "DELETE FROM _chimpbase_mesh_crons",
  "SELECT setval('_chimpbase_mesh_job_id', 1)",
];

test("the role of the page can neither create, drop, truncate nor alter, and reads nothing that it need not", async (t) => {
  const { roles } = await setting(t, true);
  for (const sql of FORBIDDEN) {
    await assert.rejects(query(roles.url, sql), (error: { code: string }) => (assert.match(error.code, /^(42501|3F000)$/, sql), true), sql);
  }
});

test("the page names every table, sequence and function, and no other", async (t) => {
  const { adminUrl } = await setting(t, true);
  const granted = new Set((await sqlOfPage())[1]!.match(/_chimpbase_mesh_\w+/g));
  const tables = await query<{ name: string }>(adminUrl, `SELECT relname AS name FROM pg_class WHERE relkind IN ('r', 'S') AND relname LIKE '\\_chimpbase%' AND relname NOT LIKE '%\\_id\\_seq'
    UNION SELECT proname FROM pg_proc WHERE proname LIKE '\\_chimpbase%'`);
  assert.deepEqual([...granted].sort(), tables.map(({ name }) => name).sort());
});
