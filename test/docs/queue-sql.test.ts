import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test, type TestContext } from "node:test";
import pg from "pg";
import { MeshNoConsumerError, chimpbaseMesh, service, type Context, type Host, type ServiceDefinition } from "@chimpbase/mesh";
import { createDatabase } from "../support/database.js";
import { hostOn } from "../support/host.js";
import { until } from "../support/wait.js";

const page = await readFile(join(resolve(import.meta.dirname, "../../.."), "docs/guides/events.md"), "utf8");
const [forgetting, ...deadLetters] = [...page.matchAll(/```sql\n([^]*?)```/g)].map(([, sql]) => sql!);

/** So that a test need not wait for as long as a node waits before it takes over. */
const LEASE_MS = 1_000;

interface Database {
  query<T extends pg.QueryResultRow>(sql: string): Promise<T[]>;
  /** A host with this service, which is stopped when the test ends at the latest. */
  start(definition: ServiceDefinition): Promise<Host>;
}

async function database(t: TestContext): Promise<Database> {
  const { url, drop } = await createDatabase();
  const client = new pg.Client({ connectionString: url });
  const hosts: Host[] = [];
  await client.connect();
  t.after(async () => {
    await Promise.all(hosts.map((host) => host.stop()));
    await client.end();
    await drop();
  });
  return {
    query: async <T extends pg.QueryResultRow>(sql: string) => (await client.query<T>(sql)).rows,
    async start(definition) {
      const { host } = hostOn(url, { server: false, worker: { leaseMs: LEASE_MS } });
      hosts.push(host);
      host.register(chimpbaseMesh({ services: [definition], transport: "local-only" }));
      await host.start();
      return host;
    },
  };
}

test("events wait for a handler that was removed, until it is forgotten as the page says", async (t) => {
  const { start, query } = await database(t);
  const billing = (pattern: string): ServiceDefinition => service({ name: "billing", events: { [pattern]: { balanced: true, handler: () => undefined } } });
  await (await start(billing("order.*"))).stop();
  const host = await start(billing("invoice.*"));
  await host.mesh.emit("order.paid", { id: 1 }, { balanced: true });
  const [look, forget] = forgetting!.split(";\n") as [string, string];
  assert.deepEqual((await query<{ count: string }>(look)).map(({ count }) => Number(count)), [1]);
  await query(forget);
  await assert.rejects(host.mesh.emit("order.paid", { id: 2 }, { balanced: true }), MeshNoConsumerError);
  assert.equal((await query(look)).length, 1);
});

test("events go to a handler whose pattern was changed, and those that waited for the old one follow", async (t) => {
  const { start, query } = await database(t);
  const seen: unknown[] = [];
  const billing = (pattern: string): ServiceDefinition =>
    service({ name: "billing", events: { [pattern]: { balanced: true, handler: (_ctx: Context, payload: unknown) => void seen.push(payload) } } });
  await (await start(billing("order.*"))).stop();
  const other = await start(service({ name: "other", actions: { x: () => 1 } }));
  await other.mesh.emit("order.paid", { id: 1 }, { balanced: true });
  const host = await start(billing("order.paid"));
  await host.mesh.emit("order.paid", { id: 2 }, { balanced: true });
  await until(() => seen.length === 1);
  assert.deepEqual(seen, [{ id: 2 }]);
  await query("UPDATE _chimpbase_mesh_jobs SET created_at = created_at - interval '90 seconds'");
  await until(() => seen.length === 2, { timeoutMs: 20_000 });
  assert.deepEqual(seen, [{ id: 2 }, { id: 1 }]);
});

test("dead letters are found, and run again, as the page says", async (t) => {
  const { start, query } = await database(t);
  const [look, , again] = deadLetters.join("").split(/;\n(\n)?/) as [string, string, string];
  let repaired = false;
  const seen: [unknown, number | undefined][] = [];
  const invoice = (ctx: Context, payload: unknown): void => {
    if (!repaired) throw new Error("the printer is out of paper");
    seen.push([payload, ctx.event?.attempt]);
  };
  const host = await start(service({ name: "billing", events: { "order.paid": { balanced: true, maxAttempts: 1, handler: invoice } } }));
  for (const id of [1, 2, 3]) await host.mesh.emit("order.paid", { id }, { balanced: true });
  await until(async () => (await query(look)).length === 3);
  const letters = await query<{ id: string; event: string; grp: string; error: string }>(look);
  for (const { event, grp, error } of letters) assert.deepEqual([event, grp, /out of paper/.test(error)], ["order.paid", "billing", true]);
  repaired = true;
  const [first, second] = letters.map(({ id }) => Number(id)).sort((a, b) => a - b);
  await query(again.replace("17, 18", `${first}, ${second}`));
  await until(() => seen.length === 2);
  assert.deepEqual(seen.sort(([a], [b]) => JSON.stringify(a).localeCompare(JSON.stringify(b))), [[{ id: 1 }, 1], [{ id: 2 }, 1]]);
  assert.equal((await query(look)).length, 1);
});
