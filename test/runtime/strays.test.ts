import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { Adoption, GroupPattern, GroupPatterns } from "#mesh/runtime/group-patterns.js";
import { soloLane } from "#mesh/runtime/lane.js";
import type { LaneSet } from "#mesh/runtime/lane-set.js";
import { Strays } from "#mesh/runtime/strays.js";
import { groupLane } from "#mesh/storage/lanes.js";
import { memoryLog } from "../support/log.js";
import { until } from "../support/wait.js";
import { balanced, Cluster } from "./worker-nodes.js";

const LEASE_MS = 800;
const OLD = groupLane("billing", "order.*");

describe("jobs that wait for a pattern which no node may have any more", () => {
  let cluster: Cluster;
  beforeEach(async () => {
    cluster = await Cluster.open();
    await cluster.storage.query("INSERT INTO _chimpbase_mesh_groups (grp, pattern, regex) VALUES ('billing', 'order.*', '^order\\.[^.]*$')");
  });
  afterEach(() => cluster.close());

  const insert = (lane: string, event: string, payloads: readonly string[]): Promise<string[]> =>
    cluster.insert(lane, `__chimpbase.mesh.balanced.${event}`, "billing", event, payloads.map((payload) => JSON.stringify(payload)));
  const age = (): Promise<unknown> => cluster.storage.query("UPDATE _chimpbase_mesh_jobs SET created_at = clock_timestamp() - interval '1 minute'");
  const beganMs = async (pattern: string): Promise<number> => {
    const [row] = await cluster.storage.query<{ ms: number }>("SELECT extract(epoch FROM began_at)::float8 * 1000 AS ms FROM _chimpbase_mesh_groups WHERE pattern = $1", [pattern]);
    return row!.ms;
  };

  it("are taken over by a node whose pattern matches their events, whether they wait, are due again, or were held; others stay", async () => {
    await insert(OLD, "order.paid", ["held"]);
    await cluster.steal("gone", -60_000);
    await insert(OLD, "order.paid", ["ready"]);
    await insert(soloLane(OLD), "order.paid", ["alone"]);
    const [other] = await insert(OLD, "order.sent", ["not for it"]);
    await age();
    await cluster.storage.query(
      `INSERT INTO _chimpbase_mesh_deferred (id, run_at, lane, queue, grp, event, payload, headers, attempt, history, created_at)
       SELECT nextval('_chimpbase_mesh_job_id'), clock_timestamp() - interval '1 minute', $1, queue, grp, 'order.paid', '"due"', headers, 2, '[]', now()
       FROM _chimpbase_mesh_jobs WHERE id = $2`,
      [OLD, other],
    );
    const seen: [unknown, number | undefined][] = [];
    const { engine } = await cluster.node({ leaseMs: LEASE_MS });
    await engine.attach([balanced("billing", "order.paid", ({ event }, payload) => seen.push([payload, event?.attempt]))]);
    await engine.start();
    await until(() => seen.length === 4, { timeoutMs: 20_000 });
    assert.deepEqual(seen.sort(), [["alone", 1], ["due", 3], ["held", 2], ["ready", 1]]);
    await until(async () => (await cluster.jobs()).length === 1);
    assert.deepEqual((await cluster.jobs()).map(({ id, lane }) => [id, lane]), [[other, OLD]]);
  });

  it("are left to nodes with that pattern until they have waited for three leases", async () => {
    const [id] = await insert(OLD, "order.paid", ["fresh"]);
    const { engine } = await cluster.node({ leaseMs: LEASE_MS });
    let ranAfterMs = 0;
    const [{ at }] = (await cluster.storage.query<{ at: Date }>("SELECT created_at AS at FROM _chimpbase_mesh_jobs WHERE id = $1", [id])) as [{ at: Date }];
    await engine.attach([balanced("billing", "order.paid", () => void (ranAfterMs = Date.now() - at.getTime()))]);
    await engine.start();
    await until(() => ranAfterMs > 0, { timeoutMs: 20_000 });
    assert.ok(ranAfterMs >= 3 * LEASE_MS - 50, `${ranAfterMs} ms`);
  });

  it("run once each, where they are more than are moved at once and several nodes want them, the one with their pattern too", async () => {
    const payloads = Array.from({ length: 1_700 }, (_, index) => String(index));
    await insert(OLD, "order.paid", payloads);
    await age();
    const ran: unknown[] = [];
    for (const pattern of ["order.paid", "order.paid", "**", "order.*"]) {
      const { engine } = await cluster.node({ leaseMs: LEASE_MS });
      await engine.attach([balanced("billing", pattern, (_scope, payload) => ran.push(payload), { concurrency: 2 })]);
      await engine.start();
    }
    await until(() => cluster.settled(), { timeoutMs: 30_000 });
    assert.equal(ran.length, payloads.length);
    assert.deepEqual(ran.map(Number).sort((a, b) => a - b), payloads.map(Number));
  });

  it("are followed by what is emitted later: a pattern counts from when its node began to serve it, and again when it took over", async () => {
    const { engine } = await cluster.node({ leaseMs: LEASE_MS });
    const ran: unknown[] = [];
    await engine.attach([balanced("billing", "order.paid", (_scope, payload) => ran.push(payload))]);
    assert.equal(await beganMs("order.paid"), -Infinity);
    await engine.start();
    await until(async () => (await beganMs("order.paid")) > 0);
    await cluster.storage.query("UPDATE _chimpbase_mesh_groups SET began_at = clock_timestamp() WHERE pattern = 'order.*'");
    assert.ok((await beganMs("order.*")) > (await beganMs("order.paid")));
    await insert(OLD, "order.paid", ["stray"]);
    await age();
    await until(() => ran.length === 1, { timeoutMs: 20_000 });
    await until(async () => (await beganMs("order.paid")) > (await beganMs("order.*")));
  });
});

describe("who looks for them", () => {
  const OWN: GroupPattern[] = [{ group: "billing", pattern: "order.paid", regex: null }];

  function strays(adoptions: (Adoption | Error)[], leaseMs = 60_000, begun: (nth: number) => Promise<void> = async () => {}): { strays: Strays; calls: string[]; lanes: { patterns: GroupPattern[] }; warnings: () => string[] } {
    const calls: string[] = [];
    const lanes = { patterns: OWN };
    const patterns = {
      begin: () => begun(calls.push("begin")),
      adopt: async () => {
        calls.push("adopt");
        const next = adoptions.shift();
        if (next instanceof Error || next === undefined) throw next;
        return next;
      },
    } as unknown as GroupPatterns;
    const { log, lines } = memoryLog();
    const made = new Strays({ patterns, lanes: lanes as unknown as LaneSet, leaseMs, log, onAdopted: (keys) => calls.push(`adopted ${keys.join()}`) });
    return { strays: made, calls, lanes, warnings: () => lines.map(({ msg }) => msg) };
  }

  async function tend(subject: Strays, hasOthers: boolean): Promise<void> {
    subject.tend(subject.groupsToCompare(), hasOthers);
    await new Promise(setImmediate);
  }

  it("compares once in a lease, says once what it serves, and does nothing where nobody has other patterns", async () => {
    const { strays: subject, calls, lanes } = strays([]);
    assert.deepEqual(subject.groupsToCompare(), ["billing"]);
    await tend(subject, false);
    assert.deepEqual(subject.groupsToCompare(), []);
    await tend(subject, false);
    assert.deepEqual(calls, ["begin"]);
    lanes.patterns = [...OWN, { group: "billing", pattern: "x", regex: null }];
    await tend(subject, false);
    assert.deepEqual(calls, ["begin", "begin"]);
  });

  it("says it once where a look comes while it is being said, and again after a failure", async () => {
    let fail!: (error: Error) => void;
    const first = new Promise<void>((_resolve, reject) => (fail = reject));
    const { strays: subject, calls, warnings } = strays([], 60_000, (nth) => (nth === 1 ? first : Promise.resolve()));
    const beginning = subject.begin();
    await tend(subject, false);
    assert.deepEqual(calls, ["begin"]);
    fail(new Error("no"));
    await beginning;
    assert.equal(warnings().length, 1);
    await tend(subject, false);
    await tend(subject, false);
    assert.deepEqual(calls, ["begin", "begin"]);
  });

  it("does not take a failure for that of what it has said since, for other patterns", async () => {
    let fail!: (error: Error) => void;
    const first = new Promise<void>((_resolve, reject) => (fail = reject));
    const { strays: subject, calls, lanes } = strays([], 60_000, (nth) => (nth === 1 ? first : Promise.resolve()));
    const beginning = subject.begin();
    lanes.patterns = [...OWN];
    await tend(subject, false);
    fail(new Error("no"));
    await beginning;
    await tend(subject, false);
    assert.deepEqual(calls, ["begin", "begin"]);
  });

  it("compares again at once after it took over as many as it can at once", async () => {
    const { strays: subject, calls } = strays([{ lanes: ["a", "a"], full: true }, { lanes: [], full: false }]);
    await tend(subject, true);
    assert.deepEqual(calls, ["begin", "adopt", "adopted a", "begin"]);
    assert.deepEqual(subject.groupsToCompare(), ["billing"]);
    await tend(subject, true);
    assert.deepEqual(subject.groupsToCompare(), []);
    assert.deepEqual(calls.slice(4), ["adopt"]);
  });

  it("warns where it fails, and goes on", async () => {
    const { strays: subject, calls, warnings } = strays([new Error("no"), { lanes: ["a"], full: false }], 0);
    await tend(subject, true);
    assert.deepEqual(warnings(), ["event patterns could not be tended, will be tried again"]);
    await tend(subject, true);
    assert.deepEqual(calls, ["begin", "adopt", "adopt", "adopted a", "begin"]);
    await subject.close();
    await tend(subject, true);
    assert.equal(calls.length, 5);
  });
});
