import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test, type TestContext } from "node:test";
import { inspect } from "node:util";
import { MeshConfigurationError, chimpbaseAuth, chimpbaseMesh, createHost, cron, onStart, route, service, type Context, type Host, type HostOptions } from "@chimpbase/mesh";
import pg from "pg";
import { createDatabase, createEmptyDatabase, withAdmin } from "../support/database.js";
import { post } from "../mesh/rpc-fixture.js";
import { until } from "../support/wait.js";

const SECRETS = { MESH_TOKEN: "tok3n-in-clear", BOOT: "b00t-in-clear", OTHER: "0ther-in-clear" };
const PASSWORD = "passw0rd-in-clear";
const CLEAR = /in-clear/;

/** All that two hosts log, and all that they answer. */
class Record {
  readonly said: string[] = [];
  readonly hosts: Host[] = [];

  host(options: HostOptions): Host {
    const host = createHost({ server: { port: 0 }, secrets: { values: SECRETS }, logger: { level: "debug", write: (line) => void this.said.push(line) }, ...options });
    this.hosts.push(host);
    return host;
  }

  async answer(url: string, init: RequestInit = {}): Promise<number> {
    const answer = await fetch(url, init);
    this.said.push(JSON.stringify([...answer.headers]), await answer.text());
    return answer.status;
  }

  /** Errors as a user would print them. */
  failed(error: unknown): void {
    this.said.push(inspect(error, { depth: 8, showHidden: true }), String(error));
  }

  check(): void {
    assert.deepEqual(this.said.filter((text) => CLEAR.test(text)), []);
  }
}

/** A database with a role of its own, so that its password is known here, and in clear, however the server is reached. */
async function databaseWithPassword(): Promise<{ url: string; drop(): Promise<void> }> {
  const database = await createEmptyDatabase();
  const url = new URL(database.url);
  url.username = `mesh_secrecy_${randomBytes(4).toString("hex")}`;
  url.password = PASSWORD;
  await withAdmin(async (admin) => {
    await admin.query(`CREATE ROLE ${url.username} LOGIN PASSWORD '${PASSWORD}'`);
    await admin.query(`ALTER DATABASE ${url.pathname.slice(1)} OWNER TO ${url.username}`);
  });
  const drop = async (): Promise<void> => {
    await database.drop();
    await withAdmin((admin) => admin.query(`DROP ROLE ${url.username}`));
  };
  return { url: url.href, drop };
}

async function twoNodes(t: TestContext): Promise<{ record: Record; a: Host; b: Host }> {
  const { url, drop } = await databaseWithPassword();
  const record = new Record();
  const node = (name: string): Host => record.host({ name, database: url }).register(
    chimpbaseMesh({ services: [service({ name, version: 1, actions: { fail: async (ctx) => { ctx.log.info("fails"); throw new Error("no"); } } })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }),
    chimpbaseAuth({ bootstrapKeySecret: "BOOT" }),
    route("fail", (request, env) => {
      if (new URL(request.url).pathname !== "/fail") return null;
      env.secret("OTHER");
      throw new Error("route failed");
    }),
    onStart((ctx) => void ctx.secret("OTHER")),
  );
  const a = node("a");
  const b = node("b");
  t.after(async () => {
    await Promise.all(record.hosts.map((host) => host.stop()));
    await drop();
  });
  await Promise.all([a.start(), b.start()]);
  return { record, a, b };
}

test("no secret is in any log line, answer, health body, row or error of a running mesh", async (t) => {
  const { record, a, b } = await twoNodes(t);
  await a.mesh.waitFor("v1.b");
  const urls = [a.url, b.url] as string[];
  for (const url of urls) {
    assert.equal(await record.answer(`${url}/readyz`), 200);
    assert.equal(await record.answer(`${url}/livez`), 200);
    assert.equal(await record.answer(`${url}/fail?key=query-in-clear`, { headers: { "x-api-key": SECRETS.BOOT } }), 500);
    assert.equal(await record.answer(`${url}/fail`, { headers: { "x-api-key": "wrong" } }), 401);
    const { text } = await post({ port: Number(new URL(url).port) }, "{", { token: SECRETS.MESH_TOKEN });
    record.said.push(text);
  }
  await a.mesh.call("v1.b.fail").catch((error: unknown) => record.failed(error));
  await b.stop();
  await a.mesh.call("v1.b.fail").catch((error: unknown) => record.failed(error));
  record.said.push(JSON.stringify(a.mesh.peers()));
  await a.stop();
  assert.ok(record.said.some((line) => line.includes("a request failed")));
  record.check();
});

/** All rows of all tables of the mesh, as text. */
async function allRows(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const tables = await client.query<{ name: string }>("SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relname LIKE '\\_chimpbase%'");
    const rows: string[] = [];
    for (const { name } of tables.rows) rows.push(...(await client.query<{ row: string }>(`SELECT t::text AS row FROM ${name} AS t`)).rows.map(({ row }) => `${name} ${row}`));
    return rows;
  } finally {
    await client.end();
  }
}

test("no secret, database password or API key is in a row, a notification, a debug log or an error of all that a mesh does", async (t) => {
  const { url, drop } = await databaseWithPassword();
  const record = new Record();
  const heard: string[] = [];
  const listener = new pg.Client({ connectionString: url });
  t.after(async () => {
    await Promise.all(record.hosts.map((host) => host.stop()));
    await listener.end();
    await drop();
  });
  const keys: { id: string; key: string }[] = [];
  const busy = service({
    name: "busy", version: 1,
    actions: { go: async (ctx: Context) => ctx.secret("OTHER")!.length },
    events: { "busy.*": { balanced: true, maxAttempts: 1, handler: async (ctx: Context) => { ctx.secret("OTHER"); throw new Error("dead"); } } },
  });
  const node = record.host({ name: "node", database: url }).register(
    chimpbaseMesh({ services: [busy], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", heartbeatMs: 100 }),
    chimpbaseAuth({ bootstrapKeySecret: "BOOT" }),
    cron("c", "* * * * * *", (ctx) => void ctx.secret("OTHER")),
    onStart(async (ctx) => {
      await ctx.queue.enqueue("nobody", { a: 1 }, { delayMs: 60_000 });
      for (let i = 0; i < 2; i++) keys.push(await ctx.action("__chimpbase.auth.keys.create", { name: "k" }));
      await ctx.action("__chimpbase.auth.keys.revoke", { id: keys[1]!.id });
      record.said.push(JSON.stringify(await ctx.action("__chimpbase.auth.keys.list")));
    }),
  );
  await node.start();
  await listener.connect();
  listener.on("notification", ({ channel, payload }) => heard.push(`${channel} ${payload}`));
  await listener.query('LISTEN "chimpbase:public:mesh"');
  await node.mesh.call("v1.busy.go");
  await node.mesh.emit("busy.now", {});
  for (const { key } of keys) await record.answer(`${node.url}/none`, { headers: { "x-api-key": key, authorization: `Bearer ${key}` } });
  await record.answer(`${node.url}/none`, { headers: { "x-api-key": SECRETS.BOOT } });
  for (const path of ["/livez", "/readyz"]) await record.answer(node.url + path);
  await post({ port: Number(new URL(node.url!).port) }, { actionName: "v1.busy.go" }, { token: `${SECRETS.MESH_TOKEN}x` });
  await until(async () => heard.length > 0 && (await allRows(url)).some((row) => row.startsWith("_chimpbase_mesh_dead_letters")));
  record.said.push(...(await allRows(url)), ...heard);
  await node.stop();
  record.check();
  assert.deepEqual(record.said.filter((text) => keys.some(({ key }) => text.includes(key))), []);
  assert.ok(record.said.some((text) => text.startsWith("_chimpbase_mesh_api_keys")));
});

test("a token that no header can hold fails the start by the name of its secret", async (t) => {
  const database = await createDatabase();
  t.after(() => database.drop());
  for (const token of ["line\nbreak-in-clear", "newline-in-clear\n", " blank-in-clear", "grüße-in-clear", ""]) {
    const record = new Record();
    const host = record.host({ database: database.url, secrets: { values: { MESH_TOKEN: token } } })
      .register(chimpbaseMesh({ services: [service({ name: "a", version: 1, actions: {} })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }));
    await assert.rejects(host.start(), (error) => {
      record.failed(error);
      return error instanceof MeshConfigurationError && error.message.includes('"MESH_TOKEN"');
    });
    record.check();
  }
});

const unusable = ["not a host", "host:99999", "127.0.0.1:1", "127.0.0.1:1/a?sslmode=nonsense"];

for (const place of unusable) {
  test(`a database that cannot be used is reported without its password: ${place}`, async () => {
    const record = new Record();
    try {
      await record.host({ database: `postgres://u:${PASSWORD}@${place}` }).start();
      assert.fail("started");
    } catch (error) {
      record.failed(error);
    }
    await until(() => record.said.length > 0);
    record.check();
  });
}
