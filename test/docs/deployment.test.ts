import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { resolveHostOptions } from "#mesh/host/options.js";
import { resolveMeshOptions } from "#mesh/mesh/options.js";

const ROOT = resolve(import.meta.dirname, "../../..");
const page = await readFile(join(ROOT, "docs/guides/deployment.md"), "utf8");
const manifest = /```yaml\n([^]*?)```/.exec(page)![1]!;

/** A number of the manifest; `within` is the key under which it stands. */
function number(key: string, within = ""): number {
  const found = new RegExp(`${within}[^]*?${key}: (\\d+)`).exec(manifest);
  assert.ok(found, `the manifest has ${within} ${key}`);
  return Number(found[1]);
}

/** What the table of times says of a setting. */
function told(setting: string): string {
  const row = page.split("\n").find((line) => line.startsWith(`| ${setting} |`));
  assert.ok(row, `the table has ${setting}`);
  return row.split("|")[2]!.trim();
}

/** What a stop may take beside its drain. */
const AROUND_DRAIN_S = Number(/more than `drainTimeoutMs` and (\d+) s/.exec(page)![1]);
const drainTimeoutMs = Number(/drainTimeoutMs: ([\d_]+)/.exec(page)![1]!.replaceAll("_", ""));
const host = resolveHostOptions({ database: "postgres://localhost/x" });
const mesh = resolveMeshOptions({ services: [class {}], meshToken: "MESH_TOKEN" });

test("the pod is given more time to stop than the drain and all that is around it takes", () => {
  assert.ok(number("terminationGracePeriodSeconds") > drainTimeoutMs / 1000 + AROUND_DRAIN_S);
});

test("what the page says of a stop around its drain adds up to what the pod is given for it", () => {
  const [, told, leaving, rest] = /telling the peers takes (\d+) s, leaving the mesh (\d+) s and the rest (\d+) s at most/.exec(page)!.map(Number);
  assert.ok(told! + leaving! + rest! <= AROUND_DRAIN_S);
});

test("the page tells how long a node that stops goes on serving its peers", async () => {
  const source = await readFile(join(ROOT, "src/mesh/node.ts"), "utf8");
  const [, most, read] = /SETTLE = \{ mostMs: (\d+), readMs: (\d+) \}/.exec(source)!.map(Number);
  const [, from, to] = /for (\S+) to (\S+) s, the node goes on serving/.exec(page)!.map(Number);
  assert.deepEqual([from! * 1000, to! * 1000], [read, most! + read!]);
});

test("a pod that stops is taken out of its Service long before it ends", () => {
  assert.ok(number("periodSeconds", "readinessProbe") * number("failureThreshold", "readinessProbe") < drainTimeoutMs / 1000);
});

test("the probes ask the paths that the host answers, and its port", () => {
  assert.match(manifest, /readinessProbe:\n +httpGet: { path: \/readyz, port: 3000 }/);
  assert.match(manifest, /livenessProbe:\n +httpGet: { path: \/livez, port: 3000 }/);
  assert.match(manifest, /startupProbe:\n +httpGet: { path: \/livez, port: 3000 }/);
  assert.match(manifest, /name: PORT, value: "3000"/);
  assert.match(manifest, /name: CHIMPBASE_MESH_ADVERTISED_URL, value: "http:\/\/\$\(POD_IP\):3000"/);
});

test("the pod gets the token and the database under the names that the program reads, from the secret that the page makes", () => {
  assert.match(page, /meshToken: "MESH_TOKEN"/);
  for (const [name, key] of [["MESH_TOKEN", "mesh-token"], ["DATABASE_URL", "database-url"]]) {
    assert.ok(manifest.includes(`{ name: ${name}, valueFrom: { secretKeyRef: { name: api, key: ${key} } } }`));
    assert.match(page, new RegExp(`kubectl create secret generic api .*--from-literal=${key}=`));
  }
});

test("no program for production has a secret in its text, where it would win over that of the environment", async () => {
  for (const guide of ["deployment", "tls"]) {
    assert.doesNotMatch(await readFile(join(ROOT, `docs/guides/${guide}.md`), "utf8"), /secrets: \{ values/);
  }
});

test("the connections that the page says are enough for so many processes are", () => {
  const [, most, processes] = /with the defaults, (\d+) is enough for (\d+)/.exec(page)!.map(Number);
  const reserved = 3;
  assert.ok(processes! * (host.database.poolSize + 2) <= most! - reserved);
  assert.ok((processes! + 1) * (host.database.poolSize + 2) > most! - reserved);
});

test("the table of times tells what the manifest and the defaults are", () => {
  assert.equal(told("`terminationGracePeriodSeconds`"), String(number("terminationGracePeriodSeconds")));
  assert.equal(told("`drainTimeoutMs`"), String(drainTimeoutMs));
  assert.equal(told("readiness: `periodSeconds` × `failureThreshold`"), `${number("periodSeconds", "readinessProbe") * number("failureThreshold", "readinessProbe")} s`);
  assert.equal(told("startup: `periodSeconds` × `failureThreshold`"), `${number("periodSeconds", "startupProbe") * number("failureThreshold", "startupProbe")} s`);
  assert.equal(told("liveness: `periodSeconds` × `failureThreshold`"), `${number("periodSeconds", "livenessProbe") * number("failureThreshold", "livenessProbe")} s`);
  assert.equal(told("`server.keepAliveTimeoutMs`"), String(host.server!.keepAliveTimeoutMs));
  assert.equal(told("`heartbeatMs` · `offlineAfterMs`"), `${mesh.heartbeatMs} · ${mesh.offlineAfterMs}`);
  assert.equal(told("`worker.leaseMs`"), String(host.worker.leaseMs));
  assert.ok(host.server!.keepAliveTimeoutMs > 60_000);
  assert.ok(mesh.offlineAfterMs >= 2 * mesh.heartbeatMs);
});
