import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, afterEach, before, describe, it } from "node:test";
import { isNotHeld, JobQueue, type JobRef, type LaneQuota } from "#mesh/runtime/queue.js";
import type { Storage, Transaction } from "#mesh/contract/storage.js";
import { GroupPatterns } from "#mesh/runtime/group-patterns.js";
import { QueueUpkeep } from "#mesh/runtime/queue-upkeep.js";
import { queueLane } from "#mesh/storage/lanes.js";
import { Cluster } from "./worker-nodes.js";

const LANE = queueLane("q");

describe("queue statements", () => {
  let cluster: Cluster;
  let queue: JobQueue;
  let upkeep: QueueUpkeep;
  before(async () => {
    cluster = await Cluster.open();
    queue = new JobQueue(cluster.storage, "node", 30_000);
    upkeep = new QueueUpkeep(cluster.storage);
  });
  afterEach(() => cluster.storage.query("TRUNCATE _chimpbase_mesh_jobs, _chimpbase_mesh_ready, _chimpbase_mesh_claims, _chimpbase_mesh_deferred, _chimpbase_mesh_dead_letters"));
  after(() => cluster.close());

  const claim = async (...quotas: LaneQuota[]) => (await queue.claim(quotas, randomUUID())).jobs;
  const expire = () => cluster.storage.query("UPDATE _chimpbase_mesh_claims SET lease_until = clock_timestamp() - interval '1 second'");
  const complete = (tx: Transaction, job: JobRef) => tx.query(queue.completing(job).sql, queue.completing(job).params);
  const failure = { lane: LANE, delayMs: 60_000, history: "[1]" };

  it("a claim takes the oldest of each lane, at most its quota, in order", async () => {
    const ids = [...await cluster.enqueue("q", Array(12).fill(0)), ...await cluster.enqueue("p", [0, 0])];
    const claimed = await claim({ lane: LANE, quota: 10 }, { lane: queueLane("p"), quota: 1 }, { lane: queueLane("none"), quota: 5 });
    assert.deepEqual(claimed.map((job) => job.id), [...ids.slice(0, 10), ids[12]]);
    assert.ok(claimed.every((job) => job.attempt === 1));
  });

  it("a claim from an id on takes what lies before it from no lane but that", async () => {
    const [, second, third] = await cluster.enqueue("q", [0, 0, 0]);
    const [other] = await cluster.enqueue("p", [0]);
    const claimed = await claim({ lane: LANE, quota: 10, from: second! }, { lane: queueLane("p"), quota: 10 });
    assert.deepEqual(claimed.map(({ id }) => id), [second, third, other]);
    assert.deepEqual(await claim({ lane: LANE, quota: 10, from: second! }), []);
    assert.equal((await claim({ lane: LANE, quota: 10 })).length, 1);
  });

  it("looks jobs up by index, also where the tables were empty when Postgres made its plans", async () => {
    const read = `SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int AS n FROM pg_stat_xact_user_tables
      WHERE relname = ANY ('{_chimpbase_mesh_jobs,_chimpbase_mesh_ready,_chimpbase_mesh_claims}')`;
    await cluster.storage.query("VACUUM ANALYZE _chimpbase_mesh_jobs, _chimpbase_mesh_ready, _chimpbase_mesh_claims");
    await cluster.storage.transaction(async (tx) => {
      const alone = new JobQueue({ ...cluster.storage, table: (name: string) => name, query: tx.query.bind(tx) } as unknown as Storage, "node", 30_000);
      const [start, rest] = [randomUUID(), randomUUID()];
      const rowsRead = async (): Promise<number> => (await tx.query<{ n: number }>(read))[0]!.n;
      assert.equal((await alone.claim([{ lane: LANE, quota: 10 }], start, [start])).jobs.length, 0);
      assert.equal((await alone.complete([{ id: "1", fence: 0, token: start }])).size, 0);
      await tx.query("INSERT INTO _chimpbase_mesh_jobs (id, lane, queue, payload, headers) SELECT n, $1, 'q', '', '{}' FROM generate_series(1, 5000) AS n", [LANE]);
      await tx.query("INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT lane, id FROM _chimpbase_mesh_jobs");
      const before = await rowsRead();
      const { jobs: claimed } = await alone.claim([{ lane: LANE, quota: 10 }], rest);
      assert.equal((await alone.complete(claimed)).size, 10);
      assert.equal((await alone.claim([{ lane: LANE, quota: 1 }], randomUUID(), [rest])).jobs.length, 1);
      const rows = (await rowsRead()) - before;
      assert.ok(rows < 200, `${rows} rows were read for 11 jobs of 5000`);
    });
  });

  it("two claims at once share the jobs, none twice", async () => {
    await cluster.enqueue("q", Array(300).fill(0));
    const claims = await Promise.all(Array.from({ length: 4 }, () => claim({ lane: LANE, quota: 100 })));
    const ids = claims.flat().map((job) => job.id);
    assert.equal(new Set(ids).size, ids.length);
    assert.equal(new Set(claims.filter((jobs) => jobs.length > 0).map((jobs) => jobs[0]!.token)).size, claims.filter((jobs) => jobs.length > 0).length);
  });

  it("a claim whose answer was lost is given back as if it had never been", async () => {
    await cluster.enqueue("q", [0, 0]);
    const [kept] = await claim({ lane: LANE, quota: 1 });
    const [lost] = await claim({ lane: LANE, quota: 1 });
    await queue.disown(lost!.token);
    assert.deepEqual((await cluster.jobs()).map((job) => [job.token, job.attempt]), [[kept!.token, 0], [null, 0]]);
    assert.equal((await queue.complete([lost!])).size, 0);
  });

  it("every change is fenced: with a token of old nothing happens, and the answer says so", async () => {
    await cluster.enqueue("q", [0]);
    const [old] = await claim({ lane: LANE, quota: 1 });
    await queue.release([{ ...old!, unstarted: true }]);
    const [current] = await claim({ lane: LANE, quota: 1 });
    for (const stale of [{ ...current!, token: old!.token, fence: old!.fence }, { ...current!, fence: old!.fence }]) await assertFenced(stale);
    const [job] = await cluster.jobs();
    assert.deepEqual([job?.token, job?.attempt, job?.holder], [current!.token, 0, "node"]);
    assert.deepEqual([...await queue.complete([current!])], [current!.id]);
  });

  it("a claim that a crash of Postgres has undone proves nothing, although the fence is the same", async () => {
    await cluster.enqueue("q", [0]);
    const [undone] = await claim({ lane: LANE, quota: 1 });
    await cluster.storage.query("DELETE FROM _chimpbase_mesh_claims");
    await cluster.storage.query("INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT lane, id FROM _chimpbase_mesh_jobs");
    const [current] = await claim({ lane: LANE, quota: 1 });
    assert.equal(undone!.fence, current!.fence);
    await assertFenced(undone!, true);
    assert.deepEqual([...await queue.complete([current!])], [current!.id]);
  });

  async function assertFenced(stale: JobRef, sameFence = false): Promise<void> {
    assert.equal((await queue.complete([stale])).size, 0);
    assert.equal((await queue.fail([{ ...stale, ...failure, error: null }])).size, 0);
    assert.equal((await queue.fail([{ ...stale, ...failure, error: "{}" }])).size, 0);
    assert.equal((await queue.extend([stale])).size, 0);
    assert.equal(await queue.stillHeld(stale), sameFence);
    await queue.release([{ ...stale, unstarted: false }]);
    await assert.rejects(cluster.storage.transaction((tx) => complete(tx, stale)), isNotHeld);
  }

  it("the row of a claim goes with the last of its jobs, and not before", async () => {
    await cluster.enqueue("q", [0, 0]);
    const [first, second] = await claim({ lane: LANE, quota: 2 });
    await queue.complete([first!]);
    await queue.forget();
    assert.equal(await cluster.claims(), 1);
    await queue.complete([second!]);
    assert.equal((await queue.claim([{ lane: LANE, quota: 1 }], randomUUID(), [first!.token])).jobs.length, 0);
    assert.equal(await cluster.claims(), 0);
  });

  it("the row of a claim whose holder never said that its jobs have ended goes when the lease ends", async () => {
    await cluster.enqueue("q", [0, 0]);
    const [first] = await claim({ lane: LANE, quota: 1 });
    const [second] = await claim({ lane: LANE, quota: 1 });
    await queue.complete([first!]);
    await upkeep.look([LANE]);
    assert.equal(await cluster.claims(), 2);
    await expire();
    await upkeep.look([queueLane("p")]);
    assert.deepEqual((await cluster.jobs()).map((job) => job.token), [second!.token]);
    assert.equal(await cluster.claims(), 1);
  });

  it("ready rows without a job, as after a purge by hand, go with the next claim", async () => {
    const ids = await cluster.enqueue("q", [0, 0, 0]);
    await cluster.storage.query("DELETE FROM _chimpbase_mesh_jobs WHERE id <> $1", [ids[2]]);
    assert.deepEqual((await claim({ lane: LANE, quota: 3 })).map((job) => job.id), [ids[2]]);
    assert.equal((await upkeep.look([LANE]))[0]?.ready, false);
  });

  it("a failed job moves whole to the deferred ones or the dead letters", async () => {
    await cluster.enqueue("q", [{ a: 1 }, { b: 2 }]);
    const [first, second] = await claim({ lane: LANE, quota: 2 });
    const done = await queue.fail([{ ...first!, ...failure, error: null }, { ...second!, ...failure, error: '{"name":"E"}' }]);
    assert.equal(done.size, 2);
    assert.deepEqual(await cluster.jobs(), []);
    const [deferred] = await cluster.deferred() as unknown as Record<string, unknown>[];
    assert.deepEqual([deferred?.["payload"], deferred?.["history"], deferred?.["attempt"]], ['{"a":1}', "[1]", 1]);
    const [dead] = await cluster.deadLetters() as unknown as Record<string, unknown>[];
    assert.deepEqual([dead?.["payload"], dead?.["error"], dead?.["lane"]], ['{"b":2}', '{"name":"E"}', LANE]);
  });

  it("an extension waits for nobody: a row locked by its own transaction still counts as held", async () => {
    await cluster.enqueue("q", [0, 0]);
    const claimed = await claim({ lane: LANE, quota: 2 });
    await expire();
    await cluster.storage.transaction(async (tx) => {
      await complete(tx, claimed[0]!);
      const [state] = await upkeep.look([LANE]);
      assert.deepEqual(state?.expired.map(({ id, fence, token, attempt }) => ({ id, fence, token, attempt })), [
        { id: claimed[1]!.id, fence: 0, token: claimed[1]!.token, attempt: 1 }]);
      assert.equal((await queue.extend(claimed)).size, 2);
    });
    const [state] = await upkeep.look([LANE]);
    assert.deepEqual(state?.expired, []);
  });

  it("an expired job is taken back once, and not where its lease was extended meanwhile or its transaction lives", async () => {
    await cluster.enqueue("q", [0, 0, 0]);
    const claimed = await claim({ lane: LANE, quota: 2 });
    const [extended] = await claim({ lane: LANE, quota: 1 });
    await expire();
    const [state] = await upkeep.look([LANE]);
    assert.equal(state?.expired.length, 3);
    await queue.extend([extended!]);
    const takeovers = [...claimed, extended!].map((job) => ({ ...job, lane: "s:q:q", history: "[2]", error: null }));
    await cluster.storage.transaction(async (tx) => {
      await complete(tx, claimed[1]!);
      assert.deepEqual(await upkeep.reclaim(takeovers), ["s:q:q"]);
    });
    const free = (await cluster.jobs()).filter((job) => job.token === null);
    assert.deepEqual(free.map((job) => [job.id, job.lane, job.history, job.attempt]), [[claimed[0]!.id, "s:q:q", "[2]", 1]]);
  });

  it("a look moves what is due, and says when the next is", async () => {
    await cluster.storage.query(
      `INSERT INTO _chimpbase_mesh_deferred (id, run_at, lane, queue, payload, headers, attempt, history, created_at)
       SELECT n, clock_timestamp() + (n - 2) * interval '10 seconds', $1, 'q', '1', '{}', 1, '[]', now() FROM generate_series(1, 4) AS n`,
      [LANE],
    );
    const states = await upkeep.look([LANE, queueLane("p")]);
    const [q, p] = [LANE, queueLane("p")].map((lane) => states.find((state) => state.lane === lane));
    assert.equal(q?.moved, 2);
    assert.ok(q.nextDueMs! > 9_000 && q.nextDueMs! <= 10_000);
    assert.deepEqual([p?.moved, p?.ready, p?.nextDueMs], [0, false, null]);
    assert.deepEqual((await cluster.jobs()).map((job) => job.id), ["1", "2"]);
    assert.equal((await upkeep.look([LANE]))[0]?.ready, true);
  });

  it("claims stay on the index of ready jobs, however many rows and lanes there are", async () => {
    await cluster.storage.query(
      "INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT 'q:' || n % 50, n FROM generate_series(1, 20000) AS n",
    );
    await cluster.storage.query("ANALYZE _chimpbase_mesh_ready");
    const plan = await cluster.storage.query<{ "QUERY PLAN": string }>(
      `EXPLAIN SELECT r.id FROM unnest(ARRAY['q:7', 'q:9'], ARRAY[10, 20]) AS want(lane, quota) CROSS JOIN LATERAL (
         SELECT id FROM _chimpbase_mesh_ready WHERE lane = want.lane
         ORDER BY id LIMIT want.quota FOR UPDATE SKIP LOCKED) AS r`,
    );
    assert.match(plan.map((row) => row["QUERY PLAN"]).join("\n"), /Index Scan using _chimpbase_mesh_ready_pkey/);
  });

  it("groups are remembered by many nodes at once, in whatever order each names them", async () => {
    const nodes = Array.from({ length: 4 }, () => cluster.node());
    const each = (await Promise.all(nodes)).map(({ storage }) => new GroupPatterns(storage));
    for (let round = 0; round < 10; round++) {
      const groups = Array.from({ length: 60 }, (_, n) => ({ group: `g${round}`, pattern: `p${n}`, regex: null }));
      const named = each.map((_, node) => groups.map((_group, n) => groups[(n * (2 * node + 7) + 15 * node) % 60]!).filter((_group, n) => n % 7 !== node));
      await Promise.all(each.map((patterns, node) => patterns.remember(named[node]!)));
    }
    const [row] = await cluster.storage.query<{ n: number }>("SELECT count(*)::int AS n FROM _chimpbase_mesh_groups");
    assert.ok(row!.n >= 550, `${row!.n}`);
  });
});
