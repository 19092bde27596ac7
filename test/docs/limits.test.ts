import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { resolveHostOptions } from "#mesh/host/options.js";
import { resolveMeshOptions } from "#mesh/mesh/options.js";

const ROOT = resolve(import.meta.dirname, "../../..");
const page = await readFile(join(ROOT, "docs/reference/limits.md"), "utf8");

test("every limit in the reference names a test that is there", () => {
  const rows = page.split("\n").filter((line) => /\.test\.ts` \|$/.test(line));
  assert.ok(rows.length > 20, "the search finds limits");
  for (const row of rows) {
    const names = Array.from(row.split("|").at(-2)!.matchAll(/`([^`]+)`/g), ([, name]) => name!);
    const folder = dirname(names[0]!);
    for (const name of names) assert.ok(existsSync(join(ROOT, name.includes("/") ? name : join(folder, name))), `${name}, in: ${row}`);
  }
});

const { server, worker, database } = resolveHostOptions({ database: "postgres://localhost/x" });
const mesh = resolveMeshOptions({ services: [class {}], meshToken: "MESH_TOKEN" });

/** By what the page says they are set by. */
const DEFAULTS: Readonly<Record<string, number>> = {
  "mesh option `maxInFlight`": mesh.maxInFlight,
  "mesh option `maxBodyBytes`": mesh.maxBodyBytes,
  "`defaultTimeoutMs`, `timeoutMs`": mesh.defaultTimeoutMs,
  "`worker.concurrency`, `concurrency`": worker.concurrency,
  "`worker.maxAttempts`, `maxAttempts`": worker.maxAttempts,
  "`database.poolSize`": database.poolSize,
  "`server.maxConnections`": server!.maxConnections,
  "`server.maxBodyBytes`": server!.maxBodyBytes,
  "`server.maxHeaderBytes`, constant": server!.maxHeaderBytes,
  "`server.headersTimeoutMs`": server!.headersTimeoutMs,
  "`server.requestTimeoutMs`": server!.requestTimeoutMs,
};

for (const [setBy, value] of Object.entries(DEFAULTS)) {
  test(`the bound set by ${setBy} is the default of the code`, () => {
    const row = page.split("\n").find((line) => line.includes(`| ${setBy} |`));
    assert.ok(row, "the page has it");
    const [, number, unit = ""] = /^(\d+)(?: (KiB|MiB|ms))?/.exec(row.split("|")[2]!.trim())!;
    assert.equal(Number(number) * ({ KiB: 1024, MiB: 1024 ** 2 }[unit] ?? 1), value);
  });
}

test("every bound that an option sets is compared with the code", () => {
  const rows = page.split("\n").filter((line) => /\.test\.ts` \|$/.test(line)).map((line) => line.split("|")[3]!.trim());
  assert.deepEqual(rows.filter((setBy) => setBy.includes("`") && !(setBy in DEFAULTS)), []);
});

test("a node refuses calls before its connections run out", () => {
  assert.ok(mesh.maxInFlight * 2 <= server!.maxConnections);
});
