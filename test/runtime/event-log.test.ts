import assert from "node:assert/strict";
import { test } from "node:test";
import type { Storage } from "#mesh/contract/storage.js";
import { createLogger } from "#mesh/logger.js";
import { EventLog, EVERYTHING, type Interest, type LogPosition } from "#mesh/runtime/event-log.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createDatabase } from "../support/database.js";

const START: LogPosition = { nextXid: "100", open: [], takenAtMs: 1, completeAtMs: 1 };

test("a subscription that comes while a read waits for its turn misses nothing that it finds", async () => {
  let interest: Interest = { names: ["a"], regex: null };
  const asked: unknown[][] = [];
  const answers: ((rows: unknown[]) => void)[] = [];
  const storage = {
    table: (name: string) => name,
    query: (_sql: string, params: unknown[]) => {
      asked.push(params.slice(-2));
      return new Promise((resolve) => answers.push(resolve));
    },
  } as unknown as Storage;
  const log = new EventLog(storage, () => interest);
  const row = (id: string, wanted: boolean, events: string | null): object => ({
    snapshot: "110:110:", now_ms: 5, id, xid: "101", node_id: "n", emitted_at_ms: 1, bytes: 2, wanted, events,
  });

  const read = log.read(START, null, false);
  interest = { names: ["a", "b"], regex: null };
  answers.shift()!([row("1", false, null)]);
  await new Promise(setImmediate);
  assert.deepEqual(asked, [[["a"], null], [[], ""]]);
  answers.shift()!([row("1", true, "[]")]);
  assert.deepEqual((await read).rows.map(({ id }) => id), ["1"]);

  const quiet = log.read(START, null, false);
  answers.shift()!([row("1", false, null), row("2", true, "[]")]);
  assert.deepEqual((await quiet).rows.map(({ id }) => id), ["2"]);
  assert.deepEqual(asked.slice(2), [[["a", "b"], null]]);
});

const EVENTS = "_chimpbase_mesh_events";

test("a look for rows past the retention reads one of those that are not, however many there are", async (t) => {
  const database = await createDatabase();
  t.after(() => database.drop());
  // Sessions report what they have read at their end at the latest.
  const session = async <T>(work: (storage: Storage) => Promise<T>): Promise<T> => {
    const storage = await openPostgres({ url: database.url, poolSize: 1, log: createLogger({ level: "error" }) });
    return work(storage).finally(() => storage.close());
  };
  const write = (age: string): Promise<unknown> => session(async (storage) => {
    await storage.query(`INSERT INTO ${EVENTS} (node_id, events, created_at) SELECT 'n', '[]', clock_timestamp() - interval '${age}' FROM generate_series(1, 2000)`);
    await storage.query(`ANALYZE ${EVENTS}`);
  });
  const collect = (): Promise<void> => session(async (storage) => {
    const log = new EventLog(storage, () => EVERYTHING);
    await log.collect(60_000, await log.collect(60_000, null));
  });
  const counts = (): Promise<{ read: number; kept: number }> => session(async (storage) => {
    const sql = `SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname = '${EVENTS}')::int
      + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = '${EVENTS}')::int AS read`;
    const [{ read }] = (await storage.query<{ read: number }>(sql)) as [{ read: number }];
    const [{ kept }] = (await storage.query<{ kept: number }>(`SELECT count(*)::int AS kept FROM ${EVENTS}`)) as [{ kept: number }];
    return { read, kept };
  });

  await write("1 s");
  const before = await counts();
  await collect();
  const after = await counts();
  assert.equal(after.kept, 2_000);
  assert.ok(after.read - before.read < before.kept + 10, `${after.read - before.read} rows read, of which ${before.kept} to count them`);

  await session((storage) => storage.query(`TRUNCATE ${EVENTS}`));
  await write("5 minutes");
  await write("1 s");
  await collect();
  assert.equal((await counts()).kept, 2_000);
});
