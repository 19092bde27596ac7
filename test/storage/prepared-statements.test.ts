import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import type { OwnedTransaction, Storage } from "#mesh/contract/storage.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createEmptyDatabase, type TestDatabase } from "../support/database.js";
import { memoryLog, silentLog } from "../support/log.js";
import { relayTo, type Relay } from "../support/network.js";

let database: TestDatabase;
before(async () => {
  database = await createEmptyDatabase();
  const storage = await openPostgres({ url: database.url, log: silentLog });
  await storage.query("CREATE FUNCTION drop_unseen() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DEALLOCATE ALL'; PERFORM pg_sleep(0.1); END $$");
  await storage.close();
});
after(() => database.drop());

const PREPARE = { prepare: true };
const DOUBLE = "SELECT $1::int * 2 AS twice";

interface Watched {
  readonly storage: Storage;
  readonly relay: Relay;
  /** How often this text went to the server. */
  sent(sql: string): number;
  /** What the connection that answers has prepared. */
  prepared(): Promise<string[]>;
  readonly warnings: () => string[];
}

/** Connections through a relay that reads along, one for all unless `poolSize` says otherwise. */
async function watch(t: TestContext, { behindPooler = false, poolSize = 1 } = {}): Promise<Watched> {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  let words = "";
  relay.rewrite = (sent) => ((words += sent.toString("latin1")), sent);
  if (behindPooler) relay.rewriteAnswer = withForeignKey;
  const { log, lines } = memoryLog();
  const storage = await openPostgres({ url: relay.url, log, poolSize });
  t.after(() => storage.close());
  return {
    storage,
    relay,
    sent: (sql) => words.split(sql).length - 1,
    prepared: async () => (await storage.query<{ statement: string }>("SELECT statement FROM pg_prepared_statements")).map(({ statement }) => statement),
    warnings: () => lines.filter(({ level }) => level === 40).map(({ msg }) => msg),
  };
}

/** The same, past the first statement that is to be prepared, after which a connection learns whether it can be. */
async function watchLearned(t: TestContext): Promise<Watched> {
  const watched = await watch(t);
  await watched.storage.query("SELECT $1::int", [1], PREPARE);
  return watched;
}

/** Gives the client the key of a session that is not the server's, as poolers do. */
function withForeignKey(answer: Buffer): Buffer {
  const at = answer.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
  if (at >= 0) answer.writeInt32BE(4_242_424, at + 5);
  return answer;
}

const twice = async (storage: Pick<Storage, "query">, of: number): Promise<unknown> => (await storage.query(DOUBLE, [of], PREPARE))[0]!["twice"];
/** The client does not see what the function does. */
const DROP_UNSEEN = "SELECT drop_unseen()";

test("a statement that is to be prepared is parsed once for a connection, from its second use on; others are parsed each time", async (t) => {
  const { storage, sent, prepared } = await watch(t);
  for (const of of [1, 2, 3, 4]) assert.equal(await twice(storage, of), 2 * of);
  assert.equal(sent(DOUBLE), 2);
  assert.deepEqual(await prepared(), [DOUBLE]);
  for (const of of [1, 2, 3]) assert.deepEqual(await storage.query("SELECT $1::int * 3 AS thrice", [of]), [{ thrice: 3 * of }]);
  assert.equal(sent("SELECT $1::int * 3"), 3);
  assert.deepEqual(await prepared(), [DOUBLE]);
});

test("it is prepared in transactions too, and where statements are sent together, and outlives a rollback", async (t) => {
  const { storage, sent, prepared } = await watchLearned(t);
  const first = { sql: DOUBLE, params: [4], prepare: true };
  await assert.rejects(storage.transaction(async (tx) => {
    assert.equal(await twice(tx, 3), 6);
    throw new Error("no");
  }), /no/);
  const tx = await storage.begin();
  assert.deepEqual(await tx.queryAll([first, first]), { rows: [[{ twice: 8 }], [{ twice: 8 }]], error: undefined });
  assert.equal(await twice(tx, 5), 10);
  await tx.commit();
  const second = { sql: "SELECT $1::text AS said", params: ["x"], prepare: true };
  const { rows, next } = await storage.queryThen(first, second);
  assert.deepEqual(rows, [{ twice: 8 }]);
  await next;
  assert.equal(sent(DOUBLE), 1);
  assert.deepEqual((await prepared()).sort(), [DOUBLE, second.sql].sort());
});

test("one that failed in its execution, the first time or later, is there the next time", async (t) => {
  const { storage } = await watchLearned(t);
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

for (const sql of ["DEALLOCATE ALL", "discard all", "SELECT 1; DEALLOCATE ALL; SELECT 2", "DEALLOCATE ALL; SELECT 1 / 0"]) {
  test(`after ${sql} it is parsed anew`, async (t) => {
    const { storage, sent, prepared, warnings } = await watchLearned(t);
    await twice(storage, 1);
    await storage.query(sql).catch(() => undefined);
    assert.equal(await twice(storage, 2), 4);
    assert.equal(await twice(storage, 3), 6);
    assert.equal(sent(DOUBLE), 2);
    assert.deepEqual(await prepared(), [DOUBLE]);
    assert.deepEqual(warnings(), []);
  });
}

test("one that the session does not have, as where a pooler shares sessions unseen, is parsed anew in the same breath; from then on none is prepared, and one warning says so", async (t) => {
  const { storage, warnings } = await watch(t, { poolSize: 3 });
  const onEach = async <T>(work: (tx: OwnedTransaction) => Promise<T>): Promise<T[]> => {
    const all = await Promise.all([1, 2, 3].map(() => storage.begin()));
    const results = await Promise.all(all.map(work));
    await Promise.all(all.map((tx) => tx.commit()));
    return results;
  };
  await onEach((tx) => tx.query("SELECT $1::int", [1], PREPARE));
  await onEach(async (tx) => {
    await twice(tx, 1);
    await tx.query(DROP_UNSEEN);
  });
  assert.deepEqual(await onEach((tx) => twice(tx, 2)), [4, 4, 4]);
  assert.deepEqual(await onEach((tx) => twice(tx, 3)), [6, 6, 6]);
  assert.deepEqual(await onEach((tx) => tx.query("SELECT statement FROM pg_prepared_statements")), [[], [], []]);
  assert.equal(warnings().length, 1);
  assert.match(warnings()[0]!, /pooler/);
});

test("alone, outside of a transaction, it is parsed anew too", async (t) => {
  const { storage, prepared } = await watchLearned(t);
  await twice(storage, 1);
  await storage.query(DROP_UNSEEN);
  assert.equal(await twice(storage, 2), 4);
  assert.deepEqual(await prepared(), []);
});

test("in a transaction that has failed already it is not executed by itself", async (t) => {
  const { storage } = await watchLearned(t);
  await storage.query("CREATE TABLE kept (i int)");
  const keep = (session: Pick<Storage, "query">, i: number): Promise<unknown> => session.query("INSERT INTO kept VALUES ($1)", [i], PREPARE);
  await keep(storage, 1);
  await storage.query(DROP_UNSEEN);
  const tx = await storage.begin();
  await tx.query("SELECT 1 / $1::int", [0]).catch(() => keep(tx, 2)).catch(() => undefined);
  await tx.rollback();
  assert.deepEqual(await storage.query("SELECT * FROM kept"), [{ i: 1 }]);
});

test("where it is not the first of its transaction, that fails, and nothing of it is done", async (t) => {
  const { storage } = await watchLearned(t);
  await storage.query("CREATE TABLE written (i int)");
  await twice(storage, 1);
  await storage.query(DROP_UNSEEN);
  await assert.rejects(storage.transaction(async (tx) => {
    await tx.query("INSERT INTO written VALUES ($1)", [1]);
    await twice(tx, 2);
  }), { code: "26000" });
  assert.deepEqual(await storage.query("SELECT * FROM written"), []);
});

test("what was written before it, in the same round trip, is written once", async (t) => {
  const { storage } = await watchLearned(t);
  await storage.query("CREATE TABLE once (i int)");
  await twice(storage, 1);
  await storage.query(DROP_UNSEEN);
  const tx = await storage.begin();
  const { rows, error } = await tx.queryAll([{ sql: "INSERT INTO once VALUES ($1)", params: [1] }, { sql: DOUBLE, params: [2], prepare: true }]);
  assert.deepEqual([rows, error], [[[], [{ twice: 4 }]], undefined]);
  await tx.commit();
  assert.deepEqual(await storage.query("SELECT * FROM once"), [{ i: 1 }]);
});

/** Each as a function returned first, and later; the value that it is called with fits both. */
const CHANGES = {
  columns: [["int", "TABLE (a int)", "SELECT 1", { a: 1 }], ["int", "TABLE (a int, b int)", "SELECT 1, 2", { a: 1, b: 2 }]],
  parameters: [["float8", "TABLE (a text)", "SELECT 'number'", { a: "number" }], ["json", "TABLE (a text)", "SELECT 'json'", { a: "json" }]],
} as const;

for (const [what, versions] of Object.entries(CHANGES)) {
  test(`where what it asks was made anew with other ${what}, it is parsed anew in the same breath, also beside another statement`, async (t) => {
    const { storage, prepared, warnings } = await watchLearned(t);
    const sql = "SELECT * FROM changing($1)";
    for (const [parameter, returned, body, row] of [...versions, ...versions]) {
      await storage.query(`DROP FUNCTION IF EXISTS changing; CREATE FUNCTION changing(${parameter}) RETURNS ${returned} LANGUAGE sql AS $$ ${body} $$`);
      assert.deepEqual(await storage.query(sql, ["7"], PREPARE), [row]);
    }
    const [[parameter, returned, body, row]] = versions;
    await storage.query(`DROP FUNCTION changing; CREATE FUNCTION changing(${parameter}) RETURNS ${returned} LANGUAGE sql AS $$ ${body} $$`);
    const { rows, next } = await storage.queryThen({ sql, params: ["7"], prepare: true }, { sql: DOUBLE, params: [1] });
    assert.deepEqual(rows, [row]);
    await next;
    assert.deepEqual(await prepared(), [sql]);
    assert.deepEqual(warnings(), []);
    await storage.query("DROP FUNCTION changing");
    const call = { sql, params: ["7"], prepare: true };
    await assert.rejects(storage.queryThen(call, { sql: DOUBLE, params: [1] }), { code: "42883" });
    await assert.rejects(storage.query(sql, ["7"], PREPARE), { code: "42883" });
  });
}

test("two in one round trip, both made anew, are both parsed anew", async (t) => {
  const { storage } = await watchLearned(t);
  const make = (columns: string, values: string): Promise<unknown> =>
    storage.query(["one", "two"].map((name) => `DROP FUNCTION IF EXISTS ${name}; CREATE FUNCTION ${name}() RETURNS TABLE (${columns}) LANGUAGE sql AS $$ SELECT ${values} $$`).join(";"));
  const both = ["one", "two"].map((name) => ({ sql: `SELECT * FROM ${name}()`, params: [], prepare: true }));
  for (const [columns, values, row] of [["a int", "1", { a: 1 }], ["a int, b int", "1, 2", { a: 1, b: 2 }]] as const) {
    await make(columns, values);
    const tx = await storage.begin();
    assert.deepEqual(await tx.queryAll(both), { rows: [[row], [row]], error: undefined });
    await tx.commit();
  }
});

test("who comes while a connection has no answer to whether it can, gets another one", async (t) => {
  const { storage, relay } = await watch(t, { poolSize: 2 });
  const pass = relay.rewrite;
  relay.rewrite = (sent) => (sent.includes("pg_backend_pid") ? Buffer.alloc(0) : pass(sent));
  assert.equal(await twice(storage, 1), 2);
  assert.deepEqual(await storage.query("SELECT $1::int AS i", [7], { acquireTimeoutMs: 2_000 }), [{ i: 7 }]);
  await storage.close(0);
});

test("an error that a statement raises by itself costs no connection, whatever its code", async (t) => {
  const { storage, warnings } = await watchLearned(t);
  const pid = async (): Promise<unknown> => (await storage.query("SELECT pg_backend_pid() AS pid"))[0]!["pid"];
  const before = await pid();
  for (const options of [{}, PREPARE]) await assert.rejects(storage.query("EXECUTE never_prepared", [], options), { code: "26000" });
  await storage.query("CREATE FUNCTION refuses(state text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF state <> '' THEN RAISE EXCEPTION 'no' USING ERRCODE = state; END IF; END $$");
  const refuses = (state: string): Promise<unknown> => storage.query("SELECT refuses($1)", [state], PREPARE);
  for (const state of ["42501", "0A000", "22012"]) {
    await refuses("");
    await assert.rejects(refuses(state), { code: state });
  }
  assert.equal(await pid(), before);
  assert.deepEqual(warnings(), []);
});

test("a connection keeps a hundred; what comes after them is parsed each time", async (t) => {
  const { storage, sent, prepared } = await watchLearned(t);
  for (const round of [1, 2]) {
    for (let i = 1; i <= 101; i++) assert.deepEqual(await storage.query(`SELECT $1::int AS round, ${i} AS i`, [round], PREPARE), [{ round, i }]);
  }
  assert.equal((await prepared()).length, 100);
  assert.deepEqual([sent("AS round, 100 "), sent("AS round, 101 ")], [1, 2]);
});

test("behind a pooler, whose keys are none of the server's, nothing is prepared", async (t) => {
  const { storage, sent, prepared, warnings } = await watch(t, { behindPooler: true });
  for (const of of [1, 2, 3]) assert.equal(await twice(storage, of), 2 * of);
  assert.equal(sent(DOUBLE), 3);
  assert.equal(sent("pg_backend_pid"), 1);
  assert.deepEqual(await prepared(), []);
  assert.deepEqual(warnings(), []);
});
