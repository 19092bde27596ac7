import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MeshError } from "@chimpbase/mesh";
import { startEmbedded } from "#mesh/storage/embedded.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { memoryLog } from "../support/log.js";
import { until } from "../support/wait.js";

test("a restart of the server: queries fail as unavailable meanwhile, then pool and LISTEN are back", { timeout: 30_000 }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "mesh-restart-test-"));
  await chmod(directory, 0o755);
  const { log, lines } = memoryLog();
  let server = await startEmbedded(directory, log);
  const storage = await openPostgres({ url: server.url, log });
  t.after(async () => {
    await storage.close();
    await server.stop();
    await rm(directory, { recursive: true });
  });
  const heard: string[] = [];
  let connected = 0;
  await storage.listen([storage.channel("a")], {
    onNotify: (_channel, payload) => void heard.push(payload),
    onConnected: () => void connected++,
    onDisconnected: () => undefined,
  });
  const open = await storage.begin();
  await Promise.all([1, 2, 3].map(() => storage.query("SELECT pg_sleep(0.01)")));

  await server.stop();
  await assert.rejects(storage.query("SELECT 1"), (error) => error instanceof MeshError && error.code === "DATABASE_UNAVAILABLE");
  assert.equal(storage.stats().reachable, false);
  await assert.rejects(open.commit(), (error) => error instanceof MeshError && error.code === "DATABASE_UNAVAILABLE");

  server = await startEmbedded(directory, log);
  assert.deepEqual(await storage.query("SELECT 1 AS one"), [{ one: 1 }]);
  assert.equal(storage.stats().reachable, true);
  await until(() => connected === 2);
  await storage.query("SELECT pg_notify($1, 'after')", [storage.channel("a")]);
  await until(() => heard.includes("after"));
  assert.deepEqual(lines.filter((line) => line.level >= 40), []);
});
