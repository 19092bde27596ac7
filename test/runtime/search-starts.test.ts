import assert from "node:assert/strict";
import { describe, it, test, type TestContext } from "node:test";
import type { LaneQuota } from "#mesh/runtime/queue.js";
import { SearchStarts, type Search } from "#mesh/runtime/search-starts.js";
import { queueLane } from "#mesh/storage/lanes.js";
import { until } from "../support/wait.js";
import { Cluster, worker } from "./worker-nodes.js";

/** Jobs that are gone, and whose entries stay. */
const GONE = 100_000;
const WANT: LaneQuota = { lane: "queue:q", quota: 10 };

function starts(t: TestContext, due: string[] = []) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let at = 0;
  t.mock.method(performance, "now", () => at);
  const all = new SearchStarts((lane) => due.push(lane));
  const pass = (ms: number): void => {
    at += ms;
    t.mock.timers.tick(ms);
  };
  /** One claim, and where it began. */
  const claim = (search: Partial<Search> = {}, want = WANT): string | undefined => {
    const [wanted] = all.of([want]);
    all.searched(wanted!, { tookMs: 1, last: undefined, emptied: true, ...search });
    return wanted!.from;
  };
  const slow = (tookMs: number, want = WANT): void => {
    for (let n = 0; n < 3; n++) claim({ tookMs }, want);
  };
  return { all, pass, claim, slow };
}

describe("where a claim begins to search its lane", () => {
  it("is the beginning while that is fast", (t) => {
    const { pass, claim } = starts(t);
    for (let id = 1; id < 20; id++, pass(200)) assert.equal(claim({ last: String(id) }), undefined);
  });

  it("is the beginning for a fiftieth of the time where that is slow, and else what was claimed a moment ago", (t) => {
    const { pass, claim } = starts(t);
    const begun = Array.from({ length: 1_000 }, (_, id) => {
      pass(10);
      return claim({ tookMs: 20, last: String(id + 1) });
    });
    const whole = begun.filter((from) => from === undefined).length;
    assert.ok(whole >= 11 && whole <= 13, `${whole} of 1000 claims, one each 10 ms, searched for 20 ms`);
    for (const [id, from] of begun.entries()) {
      // Claimed between half a second and a second ago.
      if (from !== undefined && id > 100) assert.ok(id - Number(from) >= 50 && id - Number(from) <= 101, `${from} at ${id}`);
    }
  });

  it("is the beginning as long as not three searches in a row were slow: one that has waited for a processor says nothing", (t) => {
    const { pass, claim } = starts(t);
    for (let n = 0; n < 100; n++, pass(10)) assert.equal(claim({ tookMs: n % 3 === 0 ? 2 : 80 }), undefined);
    claim({ tookMs: 80 });
    claim({ tookMs: 10 });
    claim({ tookMs: 80 });
    pass(499);
    assert.equal(claim(), "0");
    pass(1);
    assert.equal(claim(), undefined);
  });

  it("is the beginning again at once where that has become fast, and after five seconds however slow it is", (t) => {
    const { pass, claim, slow } = starts(t);
    slow(2_000);
    pass(4_999);
    assert.equal(claim(), "0");
    pass(1);
    assert.equal(claim(), undefined);
    assert.equal(claim(), undefined);
  });

  it("never lies behind what it was, whatever a search from the beginning has found", (t) => {
    const { pass, claim, slow } = starts(t);
    for (const last of ["99", "100", "7", "101"]) {
      pass(600);
      claim({ tookMs: 0, last });
    }
    slow(20);
    assert.equal(claim(), "100");
  });

  it("comes back to what lies before when a search from the beginning is due, once, and for that lane alone", (t) => {
    const due: string[] = [];
    const { pass, claim, slow } = starts(t, due);
    slow(20);
    slow(20, { lane: "other", quota: 1 });
    pass(100);
    claim({ emptied: true });
    claim({ emptied: true });
    claim({ emptied: false }, { lane: "other", quota: 1 });
    pass(899);
    assert.deepEqual(due, []);
    pass(1);
    assert.deepEqual(due, [WANT.lane]);
    assert.equal(claim({ tookMs: 20 }), undefined);
    pass(10_000);
    assert.deepEqual(due, [WANT.lane]);
  });

  it("is asked for no more after the end", (t) => {
    const due: string[] = [];
    const { all, pass, claim, slow } = starts(t, due);
    slow(20);
    claim();
    all.close();
    claim();
    pass(1_000);
    assert.deepEqual(due, []);
  });
});

test("beside a transaction that keeps what is left of many jobs, new ones are found without passing it, and old ones all the same", async (t) => {
  const cluster = await Cluster.open();
  t.after(() => cluster.close());
  const { engine, storage } = await cluster.node({ leaseMs: 120_000, pollIntervalMs: 15_000 });
  const lane = queueLane("q");
  const open = await cluster.storage.begin();
  t.after(() => open.rollback());
  await open.query("SELECT pg_current_xact_id()");
  await cluster.storage.query("SELECT setval('_chimpbase_mesh_job_id', $1)", [GONE + 1]);
  await cluster.storage.query("INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT $1, n FROM generate_series(1, $2::int) AS n", [lane, GONE]);
  await cluster.storage.query("DELETE FROM _chimpbase_mesh_ready");
  const handled: unknown[] = [];
  await engine.attach([worker("q", (_scope, payload) => handled.push(payload))]);
  await engine.start();
  for (let n = 0; n < 150; n++) {
    await cluster.enqueue("q", [n]);
    engine.wake([lane]);
    await until(() => handled.includes(n));
  }
  await cluster.storage.query("WITH late AS (INSERT INTO _chimpbase_mesh_jobs (id, lane, queue, payload, headers) VALUES (7, $1, 'q', '\"late\"', '{}') RETURNING lane, id) INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT lane, id FROM late", [lane]);
  engine.wake([lane]);
  await until(() => handled.includes("late"));
  await engine.stop();
  // Sessions report what they have read when they end, if not before.
  await storage.close();
  const passed = async (): Promise<number> => Number((await cluster.storage.query<{ n: string }>("SELECT idx_tup_read AS n FROM pg_stat_user_indexes WHERE relname = '_chimpbase_mesh_ready'"))[0]!.n);
  await until(async () => (await passed()) > GONE);
  assert.ok((await passed()) < 75 * GONE, `${await passed()} entries of ${GONE} were passed for 151 jobs`);
});
