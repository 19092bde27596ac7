import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { MeshConfigurationError, MeshValidationError, chimpbaseAuth, plugin, route, type AuthOptions, type HostEnv, type Registration } from "@chimpbase/mesh";
import { withAdmin } from "../support/database.js";
import { hostOn, makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

interface Key { readonly id: string; readonly key: string; readonly expiresAtMs: number | null }

interface Guarded {
  readonly url: string;
  readonly env: HostEnv;
  readonly databaseUrl: string;
  status(path: string, headers?: Record<string, string>): Promise<number>;
  create(args: unknown): Promise<Key>;
  run(action: string, args?: unknown): Promise<unknown>;
}

const hello = route("hello", (request, env) => (new URL(request.url).pathname === "/hello" ? Response.json(env.get("auth") ?? null) : null));

async function guard(t: TestContext, options: Partial<AuthOptions> = {}, registrations?: (auth: Registration) => Registration[]): Promise<Guarded> {
  const { host, databaseUrl } = await makeHost(t, { secrets: { values: { BOOT: "boot-key" } } });
  let env: HostEnv | undefined;
  const auth = chimpbaseAuth({ bootstrapKeySecret: "BOOT", ...options });
  host.register({ kind: "lifecycle", name: "capture", ready: (given) => void (env = given) }, ...(registrations?.(auth) ?? [auth, hello]));
  await host.start();
  const given = env as HostEnv;
  const run = (action: string, args?: unknown): Promise<unknown> => given.dispatcher.context(given.dispatcher.rootScope()).action(`__chimpbase.auth.keys.${action}`, args);
  return {
    url: host.url as string, env: given, databaseUrl, run,
    status: async (path, headers = {}) => (await fetch(host.url + path, { headers })).status,
    create: (args) => run("create", args) as Promise<Key>,
  };
}

test("without a key, every path but livez and readyz is 401", async (t) => {
  const { url, status } = await guard(t);
  const answer = await fetch(`${url}/hello`);
  assert.equal(answer.status, 401);
  assert.match(answer.headers.get("www-authenticate") ?? "", /^Bearer/);
  assert.deepEqual(await answer.json(), { ok: false, error: "unauthorized", code: "UNAUTHORIZED" });
  assert.deepEqual([await status("/nothing"), await status("/livez"), await status("/readyz")], [401, 200, 200]);
});

test("health routes are guarded where they are not excluded", async (t) => {
  const { status } = await guard(t, { excludePaths: [] });
  assert.deepEqual([await status("/livez"), await status("/livez", { "x-api-key": "boot-key" })], [401, 200]);
});

test("the bootstrap key opens by either header; anything else does not", async (t) => {
  const { status } = await guard(t);
  assert.equal(await status("/hello", { "x-api-key": "boot-key" }), 200);
  assert.equal(await status("/hello", { authorization: "Bearer boot-key" }), 200);
  assert.equal(await status("/hello", { authorization: "bearer boot-key", "x-api-key": "wrong" }), 200);
  for (const headers of [{ "x-api-key": "boot-ke" }, { "x-api-key": "boot-keyy" }, { authorization: "boot-key" }, { authorization: "Basic boot-key" }, { "x-api-key": "" }]) {
    assert.equal(await status("/hello", headers as Record<string, string>), 401, JSON.stringify(headers));
  }
});

test("a created key opens, tells routes who it is, and is stored as a hash only", async (t) => {
  const { url, create, run, env } = await guard(t);
  const { id, key, expiresAtMs } = await create({ name: "ci" });
  assert.equal(expiresAtMs, null);
  const answer = await fetch(`${url}/hello`, { headers: { "x-api-key": key } });
  assert.deepEqual(await answer.json(), { id, name: "ci" });
  const rows = await env.storage.query(`SELECT * FROM ${env.storage.table("_chimpbase_mesh_api_keys")}`);
  assert.ok(!JSON.stringify(rows).includes(key.slice(4)));
  const [listed] = (await run("list")) as { id: string; name: string; revokedAtMs: number | null }[];
  assert.deepEqual([listed?.id, listed?.name, listed?.revokedAtMs], [id, "ci", null]);
});

test("a revoked key is refused at once on the node that revoked it; revoking twice says so", async (t) => {
  const { status, create, run } = await guard(t);
  const { id, key } = await create({ name: "ci" });
  assert.equal(await status("/hello", { "x-api-key": key }), 200);
  assert.deepEqual(await run("revoke", { id }), { revoked: true });
  assert.equal(await status("/hello", { "x-api-key": key }), 401);
  assert.deepEqual(await run("revoke", { id }), { revoked: false });
});

test("a key that one node revokes is refused by the others within 5 s, though they know it", async (t) => {
  const { databaseUrl, create, run } = await guard(t);
  const { host: other } = hostOn(databaseUrl, { secrets: { values: { BOOT: "boot-key" } } });
  other.register(chimpbaseAuth({ bootstrapKeySecret: "BOOT" }), hello);
  try {
    await other.start();
    const { id, key } = await create({ name: "ci" });
    const status = async (): Promise<number> => (await fetch(`${other.url}/hello`, { headers: { "x-api-key": key } })).status;
    assert.equal(await status(), 200);
    const revokedAt = performance.now();
    await run("revoke", { id });
    await until(async () => (await status()) === 401, { timeoutMs: 10_000 });
    assert.ok(performance.now() - revokedAt < 6_000, `refused after ${Math.round(performance.now() - revokedAt)} ms`);
  } finally {
    await other.stop();
  }
});

test("a key expires on the clock of the database, cached or not", async (t) => {
  const { status, create } = await guard(t);
  const { key, expiresAtMs } = await create({ name: "short", expiresInMs: 1_500 });
  assert.ok(expiresAtMs !== null);
  assert.equal(await status("/hello", { "x-api-key": key }), 200);
  await until(async () => (await status("/hello", { "x-api-key": key })) === 401, { timeoutMs: 5_000 });
});

test("a created key that is used in a transaction which fails never existed", async (t) => {
  const { env, status } = await guard(t);
  let key = "";
  const failing = env.dispatcher.context(env.dispatcher.rootScope()).transaction(async (tx) => {
    key = ((await tx.action("__chimpbase.auth.keys.create", { name: "x" })) as Key).key;
    throw new Error("undo");
  });
  await assert.rejects(failing, { message: "undo" });
  assert.equal(await status("/hello", { "x-api-key": key }), 401);
});

test("with Postgres away, the bootstrap key and known keys still open, and an unknown one is 503, not 401", async (t) => {
  const { url, env, create, databaseUrl, status } = await guard(t);
  const known = await create({ name: "known" });
  const other = await create({ name: "other" });
  assert.equal(await status("/hello", { "x-api-key": known.key }), 200);
  const name = new URL(databaseUrl).pathname.slice(1);
  await withAdmin(async (admin) => {
    await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await until(async () => {
      // Again: one that was just being opened shows up only now.
      await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", [name]);
      return !(await env.storage.query("SELECT 1").then(() => true, () => false));
    });
  });
  const answer = await fetch(`${url}/hello`, { headers: { "x-api-key": other.key } });
  assert.equal(answer.status, 503);
  assert.equal(((await answer.json()) as { code: string }).code, "AUTH_UNAVAILABLE");
  assert.equal(await status("/hello", { "x-api-key": "boot-key" }), 200);
  assert.equal(await status("/hello", { "x-api-key": known.key }), 200);
  assert.equal(await status("/hello", { "x-api-key": "not a key of ours" }), 401);
  await withAdmin((admin) => admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`));
});

test("a route registered before the guard answers before it, one after it is guarded", async (t) => {
  const open = route("open", (request) => (request.url.endsWith("/open") ? new Response("open") : null));
  const { status } = await guard(t, {}, (auth) => [open, auth, hello]);
  assert.deepEqual([await status("/open"), await status("/hello")], [200, 401]);
});

test("only listed paths are guarded where a list is given, through the server too", async (t) => {
  const any = plugin({ name: "any" }, route("any", () => new Response("reached")));
  const { status } = await guard(t, { protectedPaths: ["/admin"] }, (auth) => [auth, any]);
  assert.equal(await status("/public"), 200);
  for (const path of ["/admin", "/admin/x", "//admin", "/ADMIN/", "/x/%2e%2e/admin", "/%61dmin", "/x/..%2fadmin"]) assert.equal(await status(path), 401, path);
});

test("wrong options, a missing secret and wrong arguments are named", async (t) => {
  assert.throws(() => chimpbaseAuth({} as never), /bootstrapKeySecret/);
  assert.throws(() => chimpbaseAuth({ bootstrapKeySecret: "A", protectPaths: [] } as never), /protectPaths/);
  const { host } = await makeHost(t, { server: false });
  host.register(chimpbaseAuth({ bootstrapKeySecret: "ABSENT_KEY" }));
  await assert.rejects(host.start(), (error) => error instanceof MeshConfigurationError && error.message.includes("ABSENT_KEY"));
  const { run } = await guard(t);
  for (const args of [undefined, {}, { name: "" }, { name: "x", expiresInMs: -1 }, { name: "x", expiresInMs: "1" }]) await assert.rejects(run("create", args), MeshValidationError);
  await assert.rejects(run("revoke", {}), MeshValidationError);
});
