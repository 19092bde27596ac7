import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { MeshOverloadedError } from "@chimpbase/mesh";
import type { OwnedTransaction, Storage } from "#mesh/contract/storage.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createEmptyDatabase, withAdmin, type TestDatabase } from "../support/database.js";
import { silentLog } from "../support/log.js";
import { until } from "../support/wait.js";

const RESERVED = { reserved: true };
const PID = "SELECT pg_backend_pid() AS pid";

let database: TestDatabase;
before(async () => void (database = await createEmptyDatabase()));
after(() => database.drop());

/** A storage whose pool is held by transactions. */
async function full(t: TestContext, poolSize = 2): Promise<{ storage: Storage; held: OwnedTransaction[] }> {
  const storage = await openPostgres({ url: database.url, log: silentLog, poolSize });
  const held: OwnedTransaction[] = [];
  for (let n = 0; n < poolSize; n++) held.push(await storage.begin());
  t.after(async () => {
    await Promise.all(held.map((tx) => tx.rollback()));
    await storage.close();
  });
  return { storage, held };
}

const pidOf = async (session: Pick<Storage, "query">, options = {}) => (await session.query<{ pid: number }>(PID, [], options))[0]!.pid;

test("a reserved statement runs while transactions hold the whole pool, on one connection more and the same each time", async (t) => {
  const { storage } = await full(t);
  const pids = await Promise.all([1, 2, 3].map(() => pidOf(storage, RESERVED)));
  assert.equal(new Set(pids).size, 1);
  assert.equal(storage.stats().total, 3);
});

test("nobody else gets the connection beyond the pool's size, used or new", async (t) => {
  const { storage } = await full(t);
  await pidOf(storage, RESERVED);
  const short = { acquireTimeoutMs: 50 };
  await assert.rejects(storage.query("SELECT 1", [], short), MeshOverloadedError);
  await assert.rejects(storage.begin({ ...short, ...RESERVED }), MeshOverloadedError);
  assert.equal(storage.stats().total, 3);
  await pidOf(storage, RESERVED);
});

test("a reserved statement goes before those that have waited longer", async (t) => {
  const { storage, held } = await full(t);
  const order: string[] = [];
  const slow = storage.query("SELECT pg_sleep(0.2)", [], RESERVED);
  await until(() => storage.stats().total === 3);
  const waiting = [
    storage.query("SELECT 1").then(() => order.push("ordinary")),
    storage.query("SELECT 1", [], RESERVED).then(() => order.push("reserved")),
  ];
  await held.pop()!.rollback();
  await Promise.all([...waiting, slow]);
  assert.deepEqual(order, ["reserved", "ordinary"]);
});

test("a waiter gets a connection where one in use was lost while the one more rests", async (t) => {
  const { storage, held } = await full(t, 1);
  await pidOf(storage, RESERVED);
  const lost = await pidOf(held[0]!);
  const waiting = pidOf(storage);
  await withAdmin((admin) => admin.query("SELECT pg_terminate_backend($1, 2000)", [lost]));
  await held[0]!.rollback();
  assert.notEqual(await waiting, lost);
  assert.ok(storage.stats().total <= 2);
});

test("mixed load never opens more than one connection beyond the pool's size, and all of it is served", async (t) => {
  const storage = await openPostgres({ url: database.url, log: silentLog, poolSize: 3 });
  t.after(() => storage.close());
  let most = 0;
  const statements = Array.from({ length: 300 }, (_, n) => storage.query("SELECT pg_sleep(0.001)", [], { reserved: n % 3 === 0 }).then(() => {
    most = Math.max(most, storage.stats().total);
  }));
  await Promise.all(statements);
  assert.equal(most, 4);
  assert.equal(storage.stats().waiting, 0);
});
