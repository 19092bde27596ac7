import assert from "node:assert/strict";
import { test } from "node:test";
import { onStart, route, type HealthReport } from "@chimpbase/mesh";
import { Health } from "#mesh/host/health.js";
import { withAdmin } from "../support/database.js";
import { makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

interface Readiness { readonly status: string; readonly checks: Record<string, HealthReport> }

async function readiness(url: string | null): Promise<{ code: number; body: Readiness }> {
  const answer = await fetch(`${url}/readyz`);
  return { code: answer.status, body: (await answer.json()) as Readiness };
}

test("readyz answers 503 until the start hooks have run, 200 then; livez answers 200 all along", async (t) => {
  const { host } = await makeHost(t);
  host.register(onStart(async () => {
    const { code, body } = await readiness(host.url);
    assert.deepEqual([code, body.status, body.checks["host"]], [503, "failing", { status: "failing", state: "starting" }]);
    assert.equal((await fetch(`${host.url}/livez`)).status, 200);
  }));
  await host.start();
  const { code, body } = await readiness(host.url);
  assert.equal(code, 200);
  assert.deepEqual(body, { status: "ok", checks: { host: { status: "ok", state: "started" }, database: { status: "ok" }, bus: { status: "ok" } } });
  assert.equal((await fetch(`${host.url}/readyz`, { method: "HEAD" })).status, 200);
  assert.equal((await fetch(`${host.url}/readyz`, { method: "POST" })).status, 404);
});

test("a plugin's failing check makes readyz answer 503, a degraded one does not", async (t) => {
  const { host } = await makeHost(t);
  let status: HealthReport["status"] = "degraded";
  host.register({ kind: "lifecycle", name: "p", ready: (env) => env.health("mesh", () => ({ status, peers: 3 })) });
  await host.start();
  const degraded = await readiness(host.url);
  assert.deepEqual([degraded.code, degraded.body.status, degraded.body.checks["mesh"]], [200, "degraded", { status: "degraded", peers: 3 }]);
  status = "failing";
  assert.equal((await readiness(host.url)).code, 503);
});

test("a check that throws is failing, and a name can be taken once", () => {
  const health = new Health();
  health.add("a", () => { throw new Error("broken"); });
  assert.deepEqual(health.read(), { status: "failing", checks: { a: { status: "failing", error: "broken" } } });
  assert.throws(() => health.add("a", () => ({ status: "ok" })), { code: "CONFIGURATION" });
});

test("guards and routes stand before the health routes", async (t) => {
  const { host } = await makeHost(t);
  host.register(route("guard", (request) => (new URL(request.url).pathname === "/readyz" ? new Response("no", { status: 401 }) : null)));
  await host.start();
  assert.equal((await fetch(`${host.url}/readyz`)).status, 401);
  assert.equal((await fetch(`${host.url}/livez`)).status, 200);
});

test("a host that has lost Postgres stays alive and ready, and says degraded", async (t) => {
  const { host, databaseUrl } = await makeHost(t);
  await host.start();
  const name = new URL(databaseUrl).pathname.slice(1);
  await withAdmin(async (admin) => {
    await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", [name]);
  });
  const lost = await until(async () => {
    const { code, body } = await readiness(host.url);
    return body.status === "degraded" ? { code, body } : null;
  });
  assert.equal(lost.code, 200);
  assert.equal((await fetch(`${host.url}/livez`)).status, 200);
  await withAdmin((admin) => admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`));
  await until(async () => (await readiness(host.url)).body.status === "ok");
});
