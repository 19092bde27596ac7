import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { migrate } from "#mesh/storage/migrations.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { MIGRATIONS } from "#mesh/storage/schema.js";
import type { Storage } from "#mesh/contract/storage.js";
import { createEmptyDatabase, withAdmin } from "../support/database.js";
import { silentLog } from "../support/log.js";

interface Bench {
  readonly url: string;
  open(schema?: string, url?: string): Promise<Storage>;
}

/** An empty database, and storages on it that are closed before it goes. */
async function bench(t: TestContext): Promise<Bench> {
  const database = await createEmptyDatabase();
  const opened: Storage[] = [];
  t.after(async () => {
    await Promise.all(opened.map((storage) => storage.close()));
    await database.drop();
  });
  const open = async (schema = "public", url = database.url): Promise<Storage> => {
    const storage = await openPostgres({ url, schema, poolSize: 1, log: silentLog });
    opened.push(storage);
    return storage;
  };
  return { url: database.url, open };
}

const ledger = (storage: Storage): Promise<unknown[]> =>
  storage.query(`SELECT id, name FROM ${storage.table("_chimpbase_mesh_migrations")} ORDER BY id`);
const expected = MIGRATIONS.map(({ id, name }) => ({ id, name }));

test("forty first boots at once on an empty database all succeed, and migrate once", { timeout: 30_000 }, async (t) => {
  const { url, open } = await bench(t);
  const boot = async (): Promise<void> => {
    const storage = await openPostgres({ url, schema: "fresh", poolSize: 1, log: silentLog });
    try {
      await migrate(storage);
      await storage.query(`SELECT FROM ${storage.table("_chimpbase_mesh_jobs")}`);
    } finally {
      await storage.close();
    }
  };
  await Promise.all(Array.from({ length: 40 }, boot));
  assert.deepEqual(await ledger(await open("fresh")), expected);
});

test("a second run changes nothing and takes no lock", async (t) => {
  const { open } = await bench(t);
  const storage = await open();
  await migrate(storage);
  const holder = await open();
  await holder.transaction(async (tx) => {
    await tx.query(`LOCK TABLE ${storage.table("_chimpbase_mesh_migrations")} IN ROW EXCLUSIVE MODE`);
    await migrate(storage);
  });
  assert.deepEqual(await ledger(storage), expected);
});

test("schemas of one database do not meet", async (t) => {
  const { open } = await bench(t);
  const [a, b] = [await open("a"), await open("b")];
  await Promise.all([migrate(a), migrate(b)]);
  await a.query(`INSERT INTO ${a.table("_chimpbase_mesh_nodes")} VALUES ('n', NULL, '{}', '[]', 1, 1)`);
  assert.deepEqual(await b.query(`SELECT * FROM ${b.table("_chimpbase_mesh_nodes")}`), []);
});

test("the table of nodes is as documented", async (t) => {
  const { open } = await bench(t);
  const storage = await open();
  await migrate(storage);
  const columns = await storage.query(
    `SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns
     WHERE table_name = '_chimpbase_mesh_nodes' ORDER BY ordinal_position`,
  );
  assert.deepEqual(columns.map((column) => Object.values(column)), [
    ["node_id", "text", "NO", null],
    ["advertised_url", "text", "YES", null],
    ["metadata_json", "text", "NO", "'{}'::text"],
    ["services_json", "text", "NO", "'[]'::text"],
    ["started_at_ms", "bigint", "NO", null],
    ["last_heartbeat_ms", "bigint", "NO", null],
  ]);
});

test("steps of a newer version are left alone", async (t) => {
  const { open } = await bench(t);
  const storage = await open();
  await migrate(storage);
  await storage.query(`INSERT INTO ${storage.table("_chimpbase_mesh_migrations")} (id, name) VALUES (9999, 'from the future')`);
  await migrate(storage);
  assert.equal((await ledger(storage)).length, expected.length + 1);
});

test("a failing step leaves nothing behind", async (t) => {
  const { open } = await bench(t);
  const storage = await open();
  await storage.query(`CREATE TABLE ${storage.table("_chimpbase_mesh_api_keys")} (other TEXT)`);
  await assert.rejects(migrate(storage), { code: "42P07" });
  assert.deepEqual(await storage.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"), [{ tablename: "_chimpbase_mesh_api_keys" }]);
});

test("a role that may not create anything boots on a finished schema, and is told what to do on an empty one", async (t) => {
  const { url, open } = await bench(t);
  const owner = await open("mesh");
  const role = `mesh_test_role_${process.pid}`;
  await withAdmin((admin) => admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`));
  t.after(() => withAdmin((admin) => admin.query(`DROP ROLE ${role}`)));
  await owner.query(`GRANT USAGE ON SCHEMA mesh TO ${role}`);

  const limitedUrl = new URL(url);
  limitedUrl.username = role;
  limitedUrl.password = "secret";
  const limited = await open("mesh", limitedUrl.href);
  await assert.rejects(migrate(limited), (error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, /schema "mesh".*grant it CREATE/);
    return true;
  });
  await assert.rejects(openPostgres({ url: limitedUrl.href, schema: "other", log: silentLog }), (error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, /database\.schema "other" does not exist/);
    return true;
  });

  await migrate(owner);
  await owner.query(`GRANT SELECT ON ALL TABLES IN SCHEMA mesh TO ${role}`);
  await migrate(limited);
});
