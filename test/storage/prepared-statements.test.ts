import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { MeshError } from "@chimpbase/mesh";
import type { Storage } from "#mesh/contract/storage.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createEmptyDatabase, type TestDatabase } from "../support/database.js";
import { memoryLog } from "../support/log.js";
import { relayTo } from "../support/network.js";

let database: TestDatabase;
before(async () => void (database = await createEmptyDatabase()));
after(() => database.drop());

const PREPARE = { prepare: true };
const DOUBLE = "SELECT $1::int * 2 AS twice";

interface Watched {
  readonly storage: Storage;
  /** How often this text went to the server. */
  sent(sql: string): number;
  /** What the one connection has prepared. */
  prepared(): Promise<string[]>;
  readonly warnings: () => string[];
}

/** One connection for all, through a relay that reads along. */
async function watch(t: TestContext, { behindPooler = false } = {}): Promise<Watched> {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  let words = "";
  relay.rewrite = (sent) => ((words += sent.toString("latin1")), sent);
  if (behindPooler) relay.rewriteAnswer = withForeignKey;
  const { log, lines } = memoryLog();
  const storage = await openPostgres({ url: relay.url, log, poolSize: 1 });
  t.after(() => storage.close());
  return {
    storage,
    sent: (sql) => words.split(sql).length - 1,
    prepared: async () => (await storage.query<{ statement: string }>("SELECT statement FROM pg_prepared_statements")).map(({ statement }) => statement),
    warnings: () => lines.filter(({ level }) => level === 40).map(({ msg }) => msg),
  };
}

/** Gives the client the key of a session that is not the server's, as poolers do. */
function withForeignKey(answer: Buffer): Buffer {
  const at = answer.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
  if (at >= 0) answer.writeInt32BE(4_242_424, at + 5);
  return answer;
}

const twice = async (storage: Pick<Storage, "query">, of: number): Promise<unknown> => (await storage.query(DOUBLE, [of], PREPARE))[0]!["twice"];
const unavailable = (error: unknown): boolean => error instanceof MeshError && error.code === "DATABASE_UNAVAILABLE" && error.retryable;

test("a statement that is to be prepared is sent once for a connection, its values each time; others are sent each time", async (t) => {
  const { storage, sent, prepared } = await watch(t);
  for (const of of [1, 2, 3]) assert.equal(await twice(storage, of), 2 * of);
  assert.equal(sent(DOUBLE), 1);
  assert.deepEqual(await prepared(), [DOUBLE]);
  for (const of of [1, 2, 3]) assert.deepEqual(await storage.query("SELECT $1::int * 3 AS thrice", [of]), [{ thrice: 3 * of }]);
  assert.equal(sent("SELECT $1::int * 3"), 3);
  assert.deepEqual(await prepared(), [DOUBLE]);
});

test("it is prepared in transactions too, and where statements are sent together, and outlives a rollback", async (t) => {
  const { storage, sent } = await watch(t);
  const first = { sql: DOUBLE, params: [4], prepare: true };
  await assert.rejects(storage.transaction(async (tx) => {
    assert.equal(await twice(tx, 3), 6);
    throw new Error("no");
  }), /no/);
  const tx = await storage.begin();
  assert.deepEqual(await tx.queryAll([first, first]), { rows: [[{ twice: 8 }], [{ twice: 8 }]], error: undefined });
  assert.equal(await twice(tx, 5), 10);
  await tx.commit();
  const { rows, next } = await storage.queryThen(first, { sql: "SELECT $1::text AS said", params: ["x"], prepare: true });
  assert.deepEqual(rows, [{ twice: 8 }]);
  await next;
  assert.equal(sent(DOUBLE), 1);
  assert.equal(sent("AS said"), 1);
});

test("one that failed in its execution, the first time or later, is there the next time", async (t) => {
  const { storage } = await watch(t);
  const sql = "SELECT 6 / $1::int AS part";
  const part = (of: number): Promise<unknown> => storage.query(sql, [of], PREPARE);
  for (const of of [0, 2, 0, 3]) {
    if (of === 0) await assert.rejects(part(of), /division by zero/);
    else assert.deepEqual(await part(of), [{ part: 6 / of }]);
  }
  await assert.rejects(storage.query("SELECT $1::int FROM nothing_there", [1], PREPARE), /nothing_there/);
  await storage.query("CREATE TEMPORARY TABLE nothing_there AS SELECT");
  assert.equal((await storage.query("SELECT $1::int FROM nothing_there", [1], PREPARE)).length, 1);
});

for (const sql of ["DEALLOCATE ALL", "DISCARD ALL", "SELECT 1; DEALLOCATE ALL; SELECT 2"]) {
  test(`after ${sql} it is prepared anew`, async (t) => {
    const { storage, sent, prepared } = await watch(t);
    await twice(storage, 1);
    await storage.query(sql);
    assert.equal(await twice(storage, 2), 4);
    assert.equal(await twice(storage, 3), 6);
    assert.equal(sent(DOUBLE), 2);
    assert.deepEqual(await prepared(), [DOUBLE]);
  });
}

test("one that the session does not have, as where a pooler shares sessions unseen, fails as unavailable; from then on none is prepared, and a warning says so", async (t) => {
  const { storage, prepared, warnings } = await watch(t);
  await twice(storage, 1);
  await storage.query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$");
  await assert.rejects(twice(storage, 2), unavailable);
  assert.equal(await twice(storage, 3), 6);
  assert.deepEqual(await prepared(), []);
  assert.equal(warnings().length, 1);
  assert.match(warnings()[0]!, /pooler/);
});

test("in a transaction too: nothing of it is done", async (t) => {
  const { storage } = await watch(t);
  await storage.query("CREATE TABLE written (i int)");
  await twice(storage, 1);
  await storage.query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$");
  await assert.rejects(storage.transaction(async (tx) => {
    await tx.query("INSERT INTO written VALUES ($1)", [1]);
    await twice(tx, 2);
  }), unavailable);
  assert.deepEqual(await storage.query("SELECT * FROM written"), []);
});

test("where what it asks was made anew with other columns, it fails as unavailable, and works on the next connection", async (t) => {
  const { storage, prepared, warnings } = await watch(t);
  const sql = "SELECT * FROM changing($1)";
  const make = async (columns: string, row: string): Promise<void> => {
    await storage.query("DROP FUNCTION IF EXISTS changing(int)");
    await storage.query(`CREATE FUNCTION changing(int) RETURNS TABLE (${columns}) LANGUAGE sql AS $$ SELECT ${row} $$`);
  };
  await make("a int", "1");
  assert.deepEqual(await storage.query(sql, [1], PREPARE), [{ a: 1 }]);
  await make("a int, b int", "1, 2");
  await assert.rejects(storage.query(sql, [1], PREPARE), unavailable);
  assert.deepEqual(await storage.query(sql, [1], PREPARE), [{ a: 1, b: 2 }]);
  assert.deepEqual(await prepared(), [sql]);
  assert.deepEqual(warnings(), []);
});

test("an error that a statement raises by itself costs no connection, whatever its code", async (t) => {
  const { storage, warnings } = await watch(t);
  const pid = async (): Promise<unknown> => (await storage.query("SELECT pg_backend_pid() AS pid"))[0]!["pid"];
  const before = await pid();
  await assert.rejects(storage.query("EXECUTE never_prepared"), { code: "26000" });
  await assert.rejects(storage.query("SELECT never_made($1::int)", [1], PREPARE), { code: "42883" });
  assert.equal(await pid(), before);
  assert.deepEqual(warnings(), []);
});

test("behind a pooler, whose keys are none of the server's, nothing is prepared", async (t) => {
  const { storage, sent, prepared, warnings } = await watch(t, { behindPooler: true });
  for (const of of [1, 2, 3]) assert.equal(await twice(storage, of), 2 * of);
  assert.equal(sent(DOUBLE), 3);
  assert.deepEqual(await prepared(), []);
  assert.deepEqual(warnings(), []);
});
