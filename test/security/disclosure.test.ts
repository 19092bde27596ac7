import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { MeshError, chimpbaseAuth, route, service, worker } from "@chimpbase/mesh";
import type { Context, Host, Registration } from "@chimpbase/mesh";
import { publicMessage } from "#mesh/public-message.js";
import { connectFailure } from "#mesh/storage/connection-errors.js";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { post } from "../mesh/rpc-fixture.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

process.env["NODE_ENV"] = "production";

const TABLES = `
  CREATE TABLE kept (id text CONSTRAINT kept_key PRIMARY KEY, other text NOT NULL);
  INSERT INTO kept VALUES ('sensitive-value', 'sensitive-value');
  CREATE FUNCTION sensitive_function(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1 / 0 AS sensitive_column'; RETURN 1; END $$;
  CREATE FUNCTION raises() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'for users' USING DETAIL = 'sensitive detail', HINT = 'sensitive hint'; END $$`;

/** By SQLSTATE. */
const FAILING: Readonly<Record<string, string>> = {
  "42P01": "SELECT * FROM sensitive_table WHERE id = ?1",
  "42703": "SELECT sensitive_column FROM kept WHERE id = ?1",
  "42601": "SELECT 1 sensitive_alias sensitive_syntax ?1",
  "22P02": "SELECT ?1::text::int",
  "22007": "SELECT (?1 || 'sensitive 2024-99-99')::text::date",
  "23505": "INSERT INTO kept VALUES (?1, 'x')",
  "23502": "INSERT INTO kept VALUES (?1 || 'sensitive', NULL)",
  "22012": "SELECT sensitive_function(?1)",
  "P0001": "SELECT raises() FROM (VALUES (?1::text)) AS sensitive_alias",
};
const states = Object.keys(FAILING);
const failing = (ctx: Context, state: string): Promise<unknown> => ctx.db.query(FAILING[state]!, ["sensitive-value"]);

const store = service({
  name: "store", version: 1,
  actions: { fail: failing, wrapped: async (ctx: Context, state: string) => { try { await failing(ctx, state); } catch (cause) { throw new MeshError("wrapped", { cause }); } } },
  events: { "store.fail": { balanced: true, maxAttempts: 2, retryDelayMs: 1, handler: failing } },
});
const front = service({ name: "front", version: 1 });

const routes = route("fails", async (request, env) => {
  const [, kind, state] = new URL(request.url).pathname.split("/") as [string, string, string];
  if (kind === "query") return Response.json(await env.db.query(FAILING[state]!, ["sensitive-value"]));
  if (kind === "call") return Response.json(await env.mesh.call("v1.store.fail", state));
  return null;
});

const portOf = (host: Host): { port: number } => ({ port: Number(new URL(host.url!).port) });

/** SQL and values bear the word in these tests; stacks have lines. */
function assertSilent(what: string, text: string): void {
  assert.doesNotMatch(text, /sensitive|SELECT|INSERT|\\n {4}at |\n {4}at |\.[jt]s:\d+|"(stack|detail|hint|where|internalQuery|query|position|routine|file|cause)":/i, what);
}

test("in production no answer, dead letter or health body holds a stack, SQL, a value or what else Postgres says", async () => {
  await using mesh = await MeshFixture.open();
  await mesh.query(TABLES);
  const [node, edge] = [mesh.host([store]), mesh.host([front])];
  node.register(worker("jobs", failing, { maxAttempts: 1 }));
  edge.register(routes);
  await Promise.all([node.start(), edge.start()]);
  await edge.mesh.waitFor("v1.store");
  for (const state of states) {
    for (const action of ["fail", "wrapped"]) {
      const reply = await post(portOf(node), { actionName: `v1.store.${action}`, args: state }, { token: "t0ken" });
      assert.deepEqual([reply.status, reply.json["code"]], [500, action === "fail" ? state : "MESH_ERROR"], reply.text);
      assertSilent(`rpc ${state}`, reply.text);
    }
    for (const kind of ["query", "call"]) {
      const answer = await fetch(`${edge.url}/${kind}/${state}`);
      assert.equal(answer.status, 500);
      assertSilent(`route ${kind} ${state}`, await answer.text());
    }
    await edge.mesh.emit("store.fail", state);
  }
  const letters = await until(async () => {
    const rows = await mesh.query<{ error: string; history: string }>("SELECT error, history FROM _chimpbase_mesh_dead_letters");
    return rows.length === states.length ? rows : null;
  });
  for (const { error, history } of letters) assertSilent("dead letter", error + history);
  assert.deepEqual(letters.map(({ error }) => (JSON.parse(error) as { code: string }).code).sort(), [...states].sort());
  for (const host of [node, edge]) for (const path of ["/livez", "/readyz"]) assertSilent(path, await (await fetch(host.url + path)).text());
  // It is in the log of the node, whole.
  assert.ok(mesh.logs.some((line) => line.includes("sensitive-value") && line.includes("a job failed for good")));
});

test("what a handler says itself, and the message of Postgres without its quotes, stays readable", async () => {
  await using mesh = await MeshFixture.open();
  await mesh.query(TABLES);
  const node = await mesh.started([store]);
  const fail = async (state: string) => (await post(portOf(node), { actionName: "v1.store.fail", args: state }, { token: "t0ken" })).json["error"];
  assert.equal(await fail("22P02"), 'invalid input syntax for type integer: "…"');
  assert.equal(await fail("42P01"), 'relation "…" does not exist');
  assert.equal(await fail("23505"), 'duplicate key value violates unique constraint "kept_key"');
  assert.equal(await fail("P0001"), "for users");
  const own = Object.assign(new Error('no "user" of that name'), { code: "22P02" });
  assert.equal(publicMessage(own), 'no "user" of that name');
  assert.equal(publicMessage(Object.assign(new Error("ungültige Eingabesyntax für Typ integer: »a»b«"), { code: "22P02", severity: "FEHLER" })), 'ungültige Eingabesyntax für Typ integer: "…"');
  assert.equal(publicMessage(Object.assign(new Error('"x"'), { code: "22P02", severity: "ERROR" }), false), '"x"');
});

test("a failing health check says no more than its own words", async () => {
  await using mesh = await MeshFixture.open();
  const host = mesh.host([front]);
  host.register({ kind: "lifecycle", name: "checks", ready: (env) => env.health("mine", () => { throw Object.assign(new Error('bad value "sensitive"'), { code: "22P02", severity: "ERROR", detail: "sensitive" }); }) });
  await host.start();
  const answer = await fetch(`${host.url}/readyz`);
  const text = await answer.text();
  assert.equal(answer.status, 503);
  assert.match(text, /bad value/);
  assertSilent("health", text);
});

test("a guard that cannot ask the database says so, and nothing of it", async () => {
  await using mesh = await MeshFixture.open();
  const host = mesh.host([front]).register(chimpbaseAuth({ bootstrapKeySecret: "MESH_TOKEN" }));
  await host.start();
  await mesh.query("ALTER TABLE _chimpbase_mesh_api_keys RENAME TO sensitive_keys");
  const answer = await fetch(`${host.url}/x`, { headers: { "x-api-key": `cbk_${"a".repeat(43)}` } });
  assert.equal(answer.status, 503);
  assertSilent("auth", await answer.text());
});

const asking = service({ name: "asking", version: 1, actions: { ask: (ctx: Context) => ctx.db.query("SELECT 1") } });
const askingRoute = route("ask", async (request, env) => (request.url.endsWith("/ask") ? Response.json(await env.db.query("SELECT 1")) : null));
/** What the last query of the route below failed with; a health check throws it. */
let failed: unknown;
const asks: Registration = { kind: "lifecycle", name: "asks", ready: (env) => env.health("last", () => { throw failed; }) };

/** What strangers and peers are told by a node that gets no connection, each without what Postgres or a socket said. */
async function assertTellsNoReason(host: Host, told: string, { code, status }: { code: string; status: number }): Promise<void> {
  const answer = await fetch(`${host.url}/ask`);
  assert.deepEqual([answer.status, await answer.json()], [status, { ok: false, error: told, code }]);
  const reply = await post(portOf(host), { actionName: "v1.asking.ask", args: null }, { token: "t0ken" });
  assert.deepEqual([reply.status, reply.json["error"], reply.json["code"]], [status, told, code], reply.text);
  const ready = await fetch(`${host.url}/readyz`);
  assert.equal(((await ready.json()) as { checks: { last: { error: string } } }).checks.last.error, told);
}

const keepFailure = route("keep", async (request, env) => {
  if (!request.url.endsWith("/keep")) return null;
  failed = await env.db.query("SELECT 1").then(() => null, (error: unknown) => error);
  return Response.json(failed === null ? "ok" : "failed");
});
/** Until it fails so: a connection that is lost while it is in use says something else first. */
const untilFailing = (host: Host, message: RegExp) =>
  until(async () => (await (await fetch(`${host.url}/keep`)).json()) === "failed" && message.test((failed as Error).message));

test("a node that cannot reach Postgres tells nobody outside of it where it looked and what the socket said", async () => {
  await using mesh = await MeshFixture.open();
  const relay = await relayTo(mesh.url);
  const host = mesh.host([asking], {}, { database: relay.url }).register(askingRoute, keepFailure, asks);
  await host.start();
  await relay.cut();
  await untilFailing(host, /^Postgres cannot be reached: connect ECONNREFUSED 127/);
  await assertTellsNoReason(host, "Postgres cannot be reached", { code: "DATABASE_UNAVAILABLE", status: 503 });
  assert.ok(mesh.logs.some((line) => line.includes("a request failed") && line.includes("ECONNREFUSED")));
  await relay.open();
  await host.stop();
  await relay.close();
});

test("a node whose password no longer holds when it reconnects tells nobody outside of it its role", async () => {
  await using mesh = await MeshFixture.open();
  const role = `sensitive_${randomBytes(6).toString("hex")}`;
  await mesh.query(`CREATE ROLE ${role} SUPERUSER LOGIN PASSWORD 'first'`);
  const host = mesh.host([asking], {}, { database: Object.assign(new URL(mesh.url), { username: role, password: "first" }).href });
  host.register(askingRoute, keepFailure, asks);
  await host.start();
  // NOLOGIN too, for servers that trust this machine.
  await mesh.query(`ALTER ROLE ${role} NOLOGIN PASSWORD 'second'`);
  await mesh.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", [role]);
  await untilFailing(host, new RegExp(`database.url: Postgres refuses the connection: .*${role}`));
  await assertTellsNoReason(host, "database.url: Postgres refuses the connection", { code: "CONFIGURATION", status: 500 });
  await host.stop().catch(() => undefined);
  await mesh.query(`DROP ROLE ${role}`);
});

test("what keeps a connection from being made is told outside production, and in it only what it is about", () => {
  const file = Object.assign(new Error("ENOENT: no such file, open '/sensitive/ca.pem'"), { code: "ENOENT", syscall: "open" });
  const error = connectFailure("database.url", file);
  assert.match(publicMessage(error, false), /sensitive/);
  assert.equal(publicMessage(error, true), "database.url: a file that sslrootcert, sslcert or sslkey in the URL names cannot be read");
});
