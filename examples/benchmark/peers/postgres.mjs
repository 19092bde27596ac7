import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const BATCH = 500;
const TRANSACTIONS = 24;
const PACKED = 50;

/**
 * The floor of queues: claims of 500 rows, handled, then deleted, the next claim under way meanwhile. With effects, each row has a transaction
 * of its own that deletes it and writes the effect, all in one round trip.
 */
export async function queue({ databaseUrl, effects }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: effects ? TRANSACTIONS + 2 : 4 });
  await pool.query("CREATE TABLE IF NOT EXISTS raw_jobs (id BIGSERIAL PRIMARY KEY, payload JSON NOT NULL, claimed BOOLEAN NOT NULL DEFAULT false)");
  const claim = async () => {
    const { rows } = await pool.query(
      `WITH next AS MATERIALIZED (SELECT id FROM raw_jobs WHERE NOT claimed ORDER BY id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)
       UPDATE raw_jobs SET claimed = true FROM next WHERE raw_jobs.id = next.id RETURNING raw_jobs.id, payload`,
    );
    return rows;
  };
  const complete = (rows, handler) => {
    for (const { payload } of rows) handler(payload);
    return pool.query("DELETE FROM raw_jobs WHERE id = ANY($1)", [rows.map(({ id }) => id)]);
  };
  const completeEach = (rows, handler) =>
    Promise.all(rows.map(async ({ id, payload }) => {
      await pool.query(`BEGIN; DELETE FROM raw_jobs WHERE id = ${Number(id)}; INSERT INTO effects (i) VALUES (${Number(payload.i)}); COMMIT`);
      handler(payload);
    }));
  return {
    load: (from, to) => pool.query("INSERT INTO raw_jobs (payload) SELECT json_build_object('i', i) FROM generate_series($1::int, $2::int) i", [from, to]),
    async consume(handler) {
      let open = true;
      const worker = async () => {
        while (open) {
          const rows = await claim();
          if (rows.length === 0) await sleep(10);
          else await (effects ? completeEach : complete)(rows, handler);
        }
      };
      const workers = [worker(), worker()];
      return () => {
        open = false;
        return Promise.all(workers);
      };
    },
    stop: () => pool.end(),
  };
}

/** The floor of broadcasts: pg_notify with 50 messages in a payload, and nothing kept. */
export async function bus({ databaseUrl }) {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const packed = [];
  let flushing;
  const flush = async () => {
    await nextTurn();
    while (packed.length > 0) await client.query("SELECT pg_notify('bench_news', $1)", [JSON.stringify(packed.splice(0, PACKED))]);
    flushing = undefined;
  };
  return {
    add(message) {
      packed.push(message);
      return (flushing ??= flush());
    },
    async consume(handler) {
      client.on("notification", ({ payload }) => JSON.parse(payload).forEach(handler));
      await client.query("LISTEN bench_news");
      return () => client.query("UNLISTEN bench_news");
    },
    stop: () => client.end(),
  };
}
