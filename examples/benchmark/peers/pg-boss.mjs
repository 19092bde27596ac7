import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { newest } from "./newest.mjs";

const module = await newest("pg-boss");
const PgBoss = module.PgBoss ?? module.default;
/** Release 10 takes the queue's name in each job, later ones in front of them. */
const namesQueueInJob = module.PgBoss === undefined;

const QUEUE = "work";
const FETCHERS = 4;
const WORKERS = 12;
const POOL = 30;
const EMPTY_PAUSE_MS = 20;

/** `variant` is how many jobs it fetches at once, and whether by `work` with `transactional`, which commits them together. */
export async function queue({ databaseUrl, effects, variant }) {
  const [size, kind] = variant.split(":");
  const batchSize = Number(size);
  const boss = new PgBoss({ connectionString: databaseUrl, max: kind === "transactional" ? POOL : FETCHERS + 2, supervise: false, schedule: false });
  boss.on("error", (error) => process.stderr.write(`pg-boss: ${error.message}\n`));
  await boss.start();
  await boss.createQueue(QUEUE);
  const pool = new pg.Pool({ connectionString: databaseUrl, max: POOL - FETCHERS - 2 });
  const insert = (messages) =>
    namesQueueInJob ? boss.insert(messages.map((data) => ({ name: QUEUE, data }))) : boss.insert(QUEUE, messages.map((data) => ({ data })));

  const handleBatch = async (jobs, handler) => {
    for (const { data } of jobs) handler(data);
    await boss.complete(QUEUE, jobs.map(({ id }) => id));
  };
  /** Effect and completion in one transaction for each job, its beginning and the effect in one round trip. */
  const handleInTransaction = async ({ id, data }, handler) => {
    const client = await pool.connect();
    const db = { executeSql: (text, values) => client.query(text, values) };
    try {
      await client.query(`BEGIN; INSERT INTO effects (i) VALUES (${Number(data.i)})`);
      await boss.complete(QUEUE, id, null, { db });
      await client.query("COMMIT");
    } finally {
      client.release();
    }
    handler(data);
  };

  const consumeInBatches = async (handler) => {
    if (namesQueueInJob) throw new Error("this release has no transactional workers");
    const options = { transactional: true, batchSize, localConcurrency: WORKERS, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    await boss.work(QUEUE, options, async (jobs, tx) => {
      for (const { data } of jobs) {
        await tx.executeSql("INSERT INTO effects (i) VALUES ($1)", [data.i]);
        handler(data);
      }
    });
    return () => boss.offWork(QUEUE);
  };

  return {
    add: (message) => boss.send(QUEUE, message),
    async load(from, to) {
      const all = Array.from({ length: to - from + 1 }, (_, index) => ({ i: from + index }));
      for (let at = 0; at < all.length; at += 1_000) await insert(all.slice(at, at + 1_000));
    },
    async consume(handler) {
      if (kind === "transactional") return consumeInBatches(handler);
      let open = true;
      const fetcher = async () => {
        while (open) {
          const jobs = await boss.fetch(QUEUE, { batchSize });
          if (jobs.length === 0) await sleep(EMPTY_PAUSE_MS);
          else if (effects) await Promise.all(jobs.map((job) => handleInTransaction(job, handler)));
          else await handleBatch(jobs, handler);
        }
      };
      const fetchers = Array.from({ length: FETCHERS }, fetcher);
      return () => {
        open = false;
        return Promise.all(fetchers);
      };
    },
    async stop() {
      await boss.stop({ graceful: false });
      await pool.end();
    },
  };
}
