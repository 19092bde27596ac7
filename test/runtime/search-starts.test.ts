import assert from "node:assert/strict";
import { describe, it, test, type TestContext } from "node:test";
import { LaneSearch } from "#mesh/runtime/lane-search.js";
import type { ClaimedJob, LaneQuota } from "#mesh/runtime/queue.js";
import { SearchStarts } from "#mesh/runtime/search-starts.js";
import { queueLane } from "#mesh/storage/lanes.js";
import { until } from "../support/wait.js";
import { Cluster, worker } from "./worker-nodes.js";

/** Jobs that are gone, and whose entries stay. */
const GONE = 200_000;
const QUOTA = 10;

interface Found {
  readonly tookMs?: number | ((from: readonly (string | undefined)[]) => number);
  readonly ids?: readonly number[];
  readonly newest?: number;
}

function starts(t: TestContext, ...lanes: readonly string[]) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let at = 1;
  t.mock.method(performance, "now", () => at);
  const searches = new Map(lanes.map((lane) => [lane, new LaneSearch()]));
  const due: string[] = [];
  const all = new SearchStarts((lane) => searches.get(lane), (lane) => due.push(lane));
  const pass = (ms: number): void => {
    at += ms;
    t.mock.timers.tick(ms);
  };
  const claimOf = (keys: readonly string[], { tookMs = 1, ids = [], newest = 1 }: Found = {}): (string | undefined)[] => {
    const sentAt = at;
    const wanted = all.of(keys.map((lane): LaneQuota => ({ lane, quota: QUOTA })));
    const from = wanted.map((want) => want.from);
    all.searched(wanted, sentAt, { jobs: ids.map((id) => ({ lane: keys[0], id: String(id) }) as ClaimedJob), tookMs: typeof tookMs === "number" ? tookMs : tookMs(from), newest: String(newest) });
    return from;
  };
  /** One claim of the first lane, and where it began. */
  const claim = (found?: Found): string | undefined => claimOf([lanes[0]!], found)[0];
  /** Lanes whose end is known, as after half a second. */
  const known = (newest = 1): void => {
    claimOf(lanes, { newest });
    pass(500);
    claimOf(lanes, { newest });
  };
  const slow = (tookMs: number, newest = 1): void => {
    known(newest);
    for (let n = 0; n < 3; n++) claim({ tookMs, newest });
  };
  return { all, searches, due, pass, claim, claimOf, known, slow };
}

/** What a search takes where only the beginning is slow. */
const fromBeginning = (ms: number) => ([from]: readonly (string | undefined)[]): number => (from === undefined ? ms : 1);
const quota = (first: number): number[] => Array.from({ length: QUOTA }, (_, n) => first + n);

describe("where a claim begins to search its lane", () => {
  it("is the beginning while that is fast", (t) => {
    const { pass, claim } = starts(t, "a");
    for (let id = 1; id < 20; id++, pass(200)) assert.equal(claim({ ids: [id], newest: id }), undefined);
  });

  it("is the beginning for a two-hundredth of the time where that is slow, and else where the end was a moment ago", (t) => {
    const { pass, claim, known } = starts(t, "a");
    known();
    const begun = Array.from({ length: 1_000 }, (_, id) => {
      pass(10);
      return claim({ tookMs: fromBeginning(20), newest: id + 1 });
    });
    const whole = begun.filter((from) => from === undefined).length;
    assert.ok(whole >= 4 && whole <= 6, `${whole} of 1000 claims, one each 10 ms, searched for 20 ms`);
    for (const [id, from] of begun.entries()) {
      // Between half a second and a second ago.
      if (from !== undefined && id > 100) assert.ok(id - Number(from) >= 50 && id - Number(from) <= 101, `${from} at ${id}`);
    }
  });

  it("is near the end also where others have taken all the jobs", (t) => {
    const { pass, claim, slow } = starts(t, "a");
    slow(100, 7_000);
    pass(600);
    claim({ newest: 8_000 });
    assert.equal(claim(), "7000");
  });

  it("is the beginning as long as not three searches in a row were slow: one that has waited for a processor says nothing", (t) => {
    const { pass, claim, known } = starts(t, "a");
    known();
    for (let n = 0; n < 100; n++, pass(10)) assert.equal(claim({ tookMs: n % 3 === 0 ? 2 : 80 }), undefined);
    for (const tookMs of [80, 10, 80]) claim({ tookMs });
    pass(1_999);
    assert.equal(claim(), "1");
    pass(1);
    assert.equal(claim(), undefined);
  });

  it("is the beginning also where many jobs were found, whose claim takes its time", (t) => {
    const { claim } = starts(t, "a");
    for (let n = 0; n < 10; n++) assert.equal(claim({ tookMs: 10, ids: Array.from({ length: 500 }, (_, id) => id + 1) }), undefined);
  });

  it("is the beginning where the end is as slow to search: then the machine is", (t) => {
    const { pass, claim, slow } = starts(t, "a");
    slow(20);
    assert.equal(claim({ tookMs: 15 }), "1");
    for (let n = 0; n < 2; n++, pass(10)) assert.equal(claim({ tookMs: 20 }), undefined);
  });

  it("is the beginning while it is not known where the end was", (t) => {
    const { pass, claim } = starts(t, "a");
    for (let n = 0; n < 9; n++, pass(50)) assert.equal(claim({ tookMs: 100 }), undefined);
  });

  it("is the beginning again at once where that has become fast, and after five seconds however slow it is", (t) => {
    const { pass, claim, slow } = starts(t, "a");
    slow(2_000);
    pass(4_999);
    assert.equal(claim(), "1");
    pass(1);
    assert.equal(claim(), undefined);
    assert.equal(claim(), undefined);
  });

  it("is behind older jobs that a search has found and left others of, until there are none", (t) => {
    const { pass, claim, slow } = starts(t, "a");
    slow(20, 1_000);
    pass(600);
    claim({ newest: 1_000 });
    pass(3_400);
    assert.equal(claim({ tookMs: 20, ids: quota(1), newest: 1_001 }), undefined);
    assert.equal(claim({ ids: quota(11), newest: 1_002 }), "10");
    assert.equal(claim({ ids: [21, 1_002], newest: 1_002 }), "20");
    assert.equal(claim(), "1000");
  });

  it("does not pass by jobs that it has not searched for, however long it takes", (t) => {
    const { pass, claim, slow } = starts(t, "a");
    slow(50, 500);
    claim({ newest: 1_000 });
    pass(500);
    claim({ newest: 1_000 });
    pass(500);
    assert.equal(claim({ ids: quota(800), newest: 2_000 }), "500");
    assert.equal(claim({ newest: 2_000 }), "500");
    assert.equal(claim({ newest: 2_000 }), "1000");
  });

  it("comes back to older jobs when a search from the beginning is due, once, and not where there was no pause", (t) => {
    const { due, pass, claim, claimOf, slow } = starts(t, "a", "b");
    slow(20);
    pass(100);
    claim();
    claim();
    claimOf(["b"]);
    pass(3_899);
    assert.deepEqual(due, []);
    pass(1);
    assert.deepEqual(due, ["a"]);
    assert.equal(claim({ tookMs: 20 }), undefined);
    pass(10_000);
    assert.deepEqual(due, ["a"]);
  });

  it("is told lane by lane which of several is slow", (t) => {
    const { pass, claimOf, known } = starts(t, "a", "b", "c");
    known();
    const claim = (): (string | undefined)[] => {
      pass(1);
      return claimOf(["a", "b", "c"], { tookMs: ([, b]) => (b === undefined ? 40 : 1) });
    };
    for (let n = 0; n < 20; n++) claim();
    const begun = Array.from({ length: 10_000 }, claim);
    const whole = [0, 1, 2].map((lane) => begun.filter((from) => from[lane] === undefined).length);
    assert.ok(whole[0]! > 9_900 && whole[1]! < 10 && whole[2]! > 9_900, String(whole));
  });

  it("is asked for no more after the end", (t) => {
    const { all, due, pass, claim, slow } = starts(t, "a");
    slow(20);
    claim();
    all.close();
    claim();
    pass(5_000);
    assert.deepEqual(due, []);
  });
});

test("beside a transaction that keeps what is left of many jobs, new ones are found without passing it, and older ones all the same", async (t) => {
  const cluster = await Cluster.open();
  t.after(() => cluster.close());
  const { engine, storage } = await cluster.node({ leaseMs: 120_000, pollIntervalMs: 15_000 });
  const lane = queueLane("q");
  const open = await cluster.storage.begin();
  t.after(() => open.rollback());
  await open.query("SELECT pg_current_xact_id()");
  await cluster.storage.query("SELECT setval('_chimpbase_mesh_job_id', $1)", [GONE]);
  await cluster.storage.query("INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT $1, n FROM generate_series(1, $2::int) AS n", [lane, GONE]);
  await cluster.storage.query("DELETE FROM _chimpbase_mesh_ready");
  const handled: unknown[] = [];
  await engine.attach([worker("q", (_scope, payload) => handled.push(payload))]);
  await engine.start();
  let jobs = 0;
  for (const end = performance.now() + 3_000; performance.now() < end; jobs++) {
    await cluster.enqueue("q", [jobs]);
    engine.wake([lane]);
    await until(() => handled.includes(jobs));
  }
  const older = Array.from({ length: 45 }, (_, n) => n + 1);
  await cluster.storage.query(
    `WITH older AS (INSERT INTO _chimpbase_mesh_jobs (id, lane, queue, payload, headers) SELECT n, $1, 'q', to_json('older ' || n), '{}' FROM unnest($2::int[]) AS n RETURNING lane, id)
     INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT lane, id FROM older`,
    [lane, older],
  );
  engine.wake([lane]);
  await until(() => older.every((n) => handled.includes(`older ${n}`)));
  await engine.stop();
  // Sessions report what they have read when they end, if not before.
  await storage.close();
  const passed = async (): Promise<number> => Number((await cluster.storage.query<{ n: string }>("SELECT idx_tup_read AS n FROM pg_stat_user_indexes WHERE relname = '_chimpbase_mesh_ready'"))[0]!.n);
  await until(async () => (await passed()) > GONE);
  assert.ok((await passed()) < (jobs / 2) * GONE, `${await passed()} entries of ${GONE} were passed for ${jobs} jobs one by one`);
});
