import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { MeshError } from "@chimpbase/mesh";
import type { Storage, Transaction } from "#mesh/contract/storage.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createEmptyDatabase, withAdmin, type TestDatabase } from "../support/database.js";
import { memoryLog, silentLog } from "../support/log.js";
import { relayTo } from "../support/network.js";

let database: TestDatabase;
let storage: Storage;

before(async () => {
  database = await createEmptyDatabase();
  const setup = await openPostgres({ url: database.url, log: silentLog });
  await setup.query("CREATE TABLE t (name TEXT, CONSTRAINT late UNIQUE (name) DEFERRABLE INITIALLY DEFERRED)");
  await setup.close();
});
after(() => database.drop());
beforeEach(async () => void (storage = await openPostgres({ url: database.url, log: silentLog, poolSize: 3 })));
afterEach(async () => {
  await storage.query("TRUNCATE t");
  await storage.close();
});

const code = (expected: string) => (error: unknown) => error instanceof MeshError && error.code === expected;
const insert = (session: Pick<Transaction, "query">, name: string): Promise<unknown> => session.query("INSERT INTO t VALUES ($1)", [name]);
async function names(): Promise<string[]> {
  const rows = await storage.query<{ name: string }>("SELECT name FROM t ORDER BY name");
  return rows.map((row) => row.name);
}

test("commits when its function resolves, with the result, and rolls back when it rejects", async () => {
  const result = await storage.transaction(async (tx) => {
    await insert(tx, "kept");
    return 7;
  });
  assert.equal(result, 7);
  const failure = new Error("no");
  const failed = storage.transaction(async (tx) => {
    await insert(tx, "dropped");
    throw failure;
  });
  await assert.rejects(failed, failure);
  assert.deepEqual(await names(), ["kept"]);
});

test("a nested transaction is a savepoint", async () => {
  await storage.transaction(async (tx) => {
    await insert(tx, "a");
    await assert.rejects(
      tx.transaction(async (nested) => {
        await insert(nested, "b");
        await nested.query("SELECT 1 / 0");
      }),
      { code: "22012" },
    );
    await tx.transaction((nested) => nested.transaction((innermost) => insert(innermost, "c")));
  });
  assert.deepEqual(await names(), ["a", "c"]);
});

test("queries asked for at once run in order of asking", async () => {
  await storage.transaction(async (tx) => {
    const order: number[] = [];
    const one = (n: number, seconds: number): Promise<unknown> => tx.query("SELECT pg_sleep($1)", [seconds]).then(() => order.push(n));
    await Promise.all([one(1, 0.05), one(2, 0), one(3, 0)]);
    assert.deepEqual(order, [1, 2, 3]);
  });
});

test("nested transactions started at once do not mix: one failing leaves the other's rows", async () => {
  await storage.transaction(async (tx) => {
    const failing = tx.transaction(async (nested) => {
      await insert(nested, "dropped");
      await sleep(20);
      await insert(nested, "dropped too");
      throw new Error("no");
    });
    const working = tx.transaction((nested) => insert(nested, "kept"));
    const beside = insert(tx, "beside");
    await assert.rejects(failing, /no/);
    await Promise.all([working, beside]);
  });
  assert.deepEqual(await names(), ["beside", "kept"]);
});

test("code inside a nested transaction may use the outer one, and then shares the nested one's fate", { timeout: 5_000 }, async () => {
  await storage.transaction(async (outer) => {
    await outer.transaction(async () => {
      await insert(outer, "kept");
      await outer.transaction(() => insert(outer, "kept too"));
    });
    const failing = outer.transaction(async () => {
      await insert(outer, "dropped");
      throw new Error("no");
    });
    await assert.rejects(failing, /no/);
  });
  assert.deepEqual(await names(), ["kept", "kept too"]);
});

test("after-commit hooks run in order after the outermost commit; a failing one is logged", async () => {
  const { log, lines } = memoryLog();
  const logging = await openPostgres({ url: database.url, log });
  const seen: unknown[] = [];
  await logging.transaction(async (tx) => {
    tx.afterCommit(async () => void seen.push(await names()));
    tx.afterCommit(() => {
      throw new Error("hook");
    });
    await tx.transaction(async (nested) => nested.afterCommit(() => void seen.push("nested")));
    await insert(tx, "a");
    assert.deepEqual(seen, []);
  });
  assert.deepEqual(seen, [["a"], "nested"]);
  assert.equal(lines.filter((line) => line.level === 50).length, 1);
  await logging.close();
});

test("after-commit hooks of what was rolled back never run", async () => {
  const seen: string[] = [];
  await storage.transaction(async (tx) => {
    const failing = tx.transaction(async (nested) => {
      nested.afterCommit(() => void seen.push("savepoint"));
      await nested.transaction(async (deep) => deep.afterCommit(() => void seen.push("below it")));
      throw new Error("no");
    });
    await assert.rejects(failing);
    tx.afterCommit(() => void seen.push("kept"));
  });
  const failing = storage.transaction(async (tx) => {
    tx.afterCommit(() => void seen.push("transaction"));
    throw new Error("no");
  });
  await assert.rejects(failing);
  assert.deepEqual(seen, ["kept"]);
});

test("used after its end it throws TRANSACTION_CLOSED", async () => {
  let leaked: Transaction | undefined;
  let nestedLeaked: Transaction | undefined;
  await storage.transaction(async (tx) => {
    leaked = tx;
    await tx.transaction(async (nested) => void (nestedLeaked = nested));
    await assert.rejects(nestedLeaked!.query("SELECT 1"), code("TRANSACTION_CLOSED"));
  });
  await assert.rejects(leaked!.query("SELECT 1"), code("TRANSACTION_CLOSED"));
  await assert.rejects(leaked!.transaction(async () => 1), code("TRANSACTION_CLOSED"));
  assert.throws(() => leaked!.afterCommit(() => undefined), code("TRANSACTION_CLOSED"));
});

test("queries not waited for still belong to the transaction", async () => {
  await storage.transaction(async (tx) => void insert(tx, "a"));
  assert.deepEqual(await names(), ["a"]);
});

test("a swallowed failure of a statement cannot look like a commit", async () => {
  const swallowing = storage.transaction(async (tx) => {
    await insert(tx, "dropped");
    await tx.query("SELECT 1 / 0").catch(() => undefined);
  });
  await assert.rejects(swallowing, code("TRANSACTION_ABORTED"));
  const nested = storage.transaction(async (tx) => {
    await assert.rejects(tx.transaction((inner) => inner.query("SELECT 1 / 0").catch(() => [])), code("TRANSACTION_ABORTED"));
    await insert(tx, "kept");
  });
  await nested;
  assert.deepEqual(await names(), ["kept"]);
});

test("an error of COMMIT itself rejects, and frees the connection", async () => {
  for (let i = 0; i < 4; i++) {
    const failing = storage.transaction(async (tx) => {
      await insert(tx, "same");
      await insert(tx, "same");
    });
    await assert.rejects(failing, { code: "23505" });
  }
  assert.deepEqual(await names(), []);
});

test("a session joins its own transaction, the pool none", async () => {
  assert.equal(await storage.joinTransaction(), null);
  await storage.transaction(async (tx) => {
    assert.equal(await tx.joinTransaction(), tx);
    await tx.transaction(async (nested) => assert.equal(await nested.joinTransaction(), nested));
  });
});

test("an owned transaction ends by commit or rollback, and a rollback after the end does nothing", async () => {
  const kept = await storage.begin();
  await insert(kept, "kept");
  await kept.commit();
  await kept.rollback();
  const dropped = await storage.begin();
  await insert(dropped, "dropped");
  await dropped.rollback();
  await dropped.rollback();
  await assert.rejects(dropped.commit(), code("TRANSACTION_CLOSED"));
  assert.deepEqual(await names(), ["kept"]);
  assert.equal(storage.stats().idle, storage.stats().total);
});

test("a connection lost inside a transaction fails it as unavailable, and rollback never rejects", async () => {
  const tx = await storage.begin();
  const [row] = await tx.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  await insert(tx, "dropped");
  await withAdmin((admin) => admin.query("SELECT pg_terminate_backend($1, 2000)", [row!.pid]));
  await assert.rejects(insert(tx, "dropped"), code("DATABASE_UNAVAILABLE"));
  await tx.rollback();
  const idle = await storage.begin();
  const [other] = await idle.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  await withAdmin((admin) => admin.query("SELECT pg_terminate_backend($1, 2000)", [other!.pid]));
  await sleep(20);
  await assert.rejects(idle.commit(), code("DATABASE_UNAVAILABLE"));
  assert.deepEqual(await names(), []);
});

test("a connection that breaks during COMMIT leaves the outcome unknown, and says so", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  relay.cutWhen = (sent) => sent.includes("COMMIT");
  const behind = await openPostgres({ url: relay.url, log: silentLog });
  const seen: string[] = [];
  const committing = behind.transaction(async (tx) => {
    tx.afterCommit(() => void seen.push("hook"));
    await insert(tx, "a");
  });
  await assert.rejects(committing, code("COMMIT_UNKNOWN"));
  assert.deepEqual(seen, []);
  relay.cutWhen = () => false;
  await behind.transaction((tx) => insert(tx, "b"));
  await behind.close();
});

test("a transaction whose connection goes silent ends at its limit: before COMMIT nothing is committed, during COMMIT nobody knows", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const behind = await openPostgres({ url: relay.url, log: silentLog, poolSize: 1 });
  const within = { answerTimeoutMs: 150 };
  const before = await behind.begin(within);
  relay.freeze();
  await assert.rejects(before.query("SELECT 1", [], within), code("DATABASE_UNAVAILABLE"));
  await assert.rejects(before.commit(), (error) => code("DATABASE_UNAVAILABLE")(error) && /nothing is committed/.test((error as Error).message));
  relay.thaw();
  const during = await behind.begin(within);
  await insert(during, "perhaps");
  relay.freeze();
  await assert.rejects(during.commit(), code("COMMIT_UNKNOWN"));
  relay.thaw();
  await behind.transaction((tx) => insert(tx, "next"));
  await behind.close();
  assert.ok((await names()).includes("next"));
});

test("a dead connection met by BEGIN costs nothing", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const behind = await openPostgres({ url: relay.url, log: silentLog });
  let cuts = 0;
  relay.cutWhen = (sent) => sent.includes("BEGIN") && cuts++ === 0;
  await behind.transaction((tx) => insert(tx, "a"));
  assert.equal(cuts, 2);
  await behind.close();
});

test("a dead connection met by BEGIN, where no other can be had, fails the first statement as unavailable, and takes no place in the pool", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const behind = await openPostgres({ url: relay.url, log: silentLog, poolSize: 1 });
  relay.cutWhen = (sent) => sent.includes("BEGIN") && (void relay.cut(), true);
  for (const end of ["rollback", "commit"] as const) {
    const tx = await behind.begin();
    await assert.rejects(insert(tx, "lost"), code("DATABASE_UNAVAILABLE"));
    await (end === "rollback" ? tx.rollback() : assert.rejects(tx.commit(), code("DATABASE_UNAVAILABLE")));
    await relay.open();
    await behind.query("SELECT 1");
  }
  relay.cutWhen = () => false;
  await behind.transaction((tx) => insert(tx, "kept"));
  assert.deepEqual(await names(), ["kept"]);
  await behind.close();
});

const state = (expected: string) => (error: unknown) => (error as { code?: string }).code === expected;

test("BEGIN goes along with the first statement, which has its own limit all the same", async () => {
  const patient = await storage.begin({ answerTimeoutMs: 150 });
  await patient.query("SELECT pg_sleep($1)", [0.4], { answerTimeoutMs: Infinity });
  await patient.commit();
  const hasty = await storage.begin();
  const startedAt = performance.now();
  await assert.rejects(hasty.query("SELECT pg_sleep($1)", [10], { answerTimeoutMs: 200 }), code("DATABASE_UNAVAILABLE"));
  assert.ok(performance.now() - startedAt < 3_000);
  await hasty.rollback();
});

test("a first statement whose values cannot be sent fails alone, and one that Postgres refuses tells who sent it", async () => {
  const circular: Record<string, unknown> = {};
  circular["self"] = circular;
  const tx = await storage.begin();
  await assert.rejects(tx.query("SELECT $1::json", [circular]), /circular/i);
  assert.deepEqual(await tx.query("SELECT $1::int AS n", [1]), [{ n: 1 }]);
  await tx.commit();
  const refused = await storage.begin();
  await assert.rejects(refused.query("SELECT $1::int / 0", [1]), (error: Error) => state("22012")(error) && /statement|transaction/.test(error.stack ?? ""));
  await assert.rejects(refused.query("SELECT 1"), state("25P02"));
  await refused.rollback();
});

test("of statements sent together none is executed after one that fails, and the transaction is aborted", async () => {
  const tx = await storage.begin();
  const statements = [["SELECT $1::int AS n", 1], ["SELECT 1 / $1::int", 0], ["SELECT pg_advisory_lock($1)", 42]] as const;
  const { rows, error } = await tx.queryAll(statements.map(([sql, value]) => ({ sql, params: [value] })));
  assert.deepEqual(rows, [[{ n: 1 }]]);
  assert.ok(state("22012")(error));
  await assert.rejects(tx.commit(), code("TRANSACTION_ABORTED"));
  assert.deepEqual(await storage.query("SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory'"), [{ n: 0 }]);
});

test("a transaction that a statement has ended by hand says so at its end", async () => {
  await assert.rejects(storage.transaction(async (tx) => {
    await tx.query("SELECT $1::int", [1]);
    await tx.query("ROLLBACK");
  }), (error) => code("TRANSACTION_CLOSED")(error) && /no COMMIT/.test((error as Error).message));
  assert.equal(storage.stats().idle, storage.stats().total);
});
