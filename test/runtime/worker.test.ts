import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, describe, it } from "node:test";
import type { Scope } from "#mesh/contract/registration.js";
import { groupLane, queueLane } from "#mesh/storage/lanes.js";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { until } from "../support/wait.js";
import { balanced, Cluster, EVENT_ID, Gate, sleep, worker } from "./worker-nodes.js";

describe("worker engine", () => {
  let cluster: Cluster;
  beforeEach(async () => { cluster = await Cluster.open(); });
  afterEach(() => cluster.close());

  it("runs each job once, in order where one runs at a time, and leaves nothing behind", async () => {
    const { engine } = await cluster.node();
    const seen: unknown[] = [];
    const sent = Array.from({ length: 700 }, (_, index) => index);
    await cluster.enqueue("numbers", sent);
    await engine.attach([worker("numbers", (_scope, payload) => seen.push(payload), { concurrency: 1 })]);
    await engine.start();
    await until(() => cluster.settled());
    assert.deepEqual(seen, sent);
  });

  it("hands over what travels with a job, and an event only to handlers of events", async () => {
    const { engine } = await cluster.node();
    const scopes: Scope[] = [];
    await engine.attach([
      worker("plain", (scope) => scopes.push(scope)),
      balanced("billing", "order.*", (scope) => scopes.push(scope)),
    ]);
    await engine.start();
    await cluster.enqueue("plain", [1]);
    await until(() => scopes.length === 1);
    await cluster.emitTo("billing", "order.*", "order.paid", { total: 3 });
    await until(() => scopes.length === 2);
    const [plain, event] = scopes as [Scope, Scope];
    assert.equal(plain.event, undefined);
    assert.equal(plain.requestId, "request-1");
    assert.deepEqual(plain.meta, { tenant: "acme" });
    assert.deepEqual(plain.caller, { nodeId: "emitter", action: null });
    const { emittedAtMs, ...rest } = event.event!;
    assert.deepEqual(rest, { id: EVENT_ID, name: "order.paid", attempt: 1, balanced: true, nodeId: "emitter" });
    assert.ok(Math.abs(emittedAtMs - Date.now()) < 60_000);
  });

  it("starts a job within milliseconds of a wake-up, without waiting for a poll", async () => {
    const { engine } = await cluster.node({ pollIntervalMs: 60_000 });
    let done = 0;
    await engine.attach([worker("quick", () => void done++)]);
    await engine.start();
    const delays: number[] = [];
    for (let index = 1; index <= 21; index++) {
      await cluster.enqueue("quick", [index]);
      const wokenAt = performance.now();
      engine.wake([queueLane("quick"), queueLane("somebody else's")]);
      await until(() => done === index);
      delays.push(performance.now() - wokenAt);
    }
    // The wait itself polls every 5 ms; the bound leaves room for a busy machine.
    assert.ok(delays.sort((a, b) => a - b)[10]! < 100, `median ${delays[10]} ms`);
  });

  it("lets other nodes go first after it came too late for what all are told, and takes what they leave", async () => {
    const { engine, storage } = await cluster.node({ pollIntervalMs: 60_000 });
    let claims = 0;
    const query = storage.query.bind(storage);
    Object.assign(storage, { query: (...args: Parameters<typeof query>) => ((claims += args[0].includes("_mesh_claim\"(") ? 1 : 0), query(...args)) });
    let done = 0;
    await engine.attach([worker("told", () => void done++)]);
    await engine.start();
    const started = performance.now();
    let told = 0;
    for (; performance.now() - started < 400; told++) {
      engine.hear([queueLane("told")]);
      await sleep(1);
    }
    const elapsed = performance.now() - started;
    assert.ok(claims <= 10 + elapsed / 8, `${claims} claims in vain after ${told} wake-ups in ${elapsed} ms`);
    await cluster.enqueue("told", [1, 2]);
    engine.hear([queueLane("told")]);
    // The next look comes after 3.75 s.
    await until(() => done === 2, { timeoutMs: 1_500 });
  });

  it("finds jobs without a wake-up within the poll interval", async () => {
    const { engine } = await cluster.node({ pollIntervalMs: 50 });
    let done = 0;
    await engine.attach([worker("polled", () => void done++)]);
    await engine.start();
    await sleep(100);
    await cluster.enqueue("polled", [1]);
    await until(() => done === 1, { timeoutMs: 2_000 });
  });

  it("looks more rarely while it has nothing to do and would be told", async () => {
    const looks = async (live: boolean): Promise<number> => {
      const { engine, storage } = await cluster.node({ pollIntervalMs: 50 }, 10, live);
      const query = storage.query.bind(storage);
      let count = 0;
      storage.query = (...args) => (args[0].includes("AS served") || args[0].includes("served AS") ? count++ : 0, query(...args));
      await engine.attach([worker("idle", () => undefined)]);
      await engine.start();
      await sleep(1_000);
      await engine.stop();
      return count;
    };
    const [polling, told] = [await looks(false), await looks(true)];
    assert.ok(told >= 3 && told <= 8 && polling >= 2 * told, `${polling} and ${told} looks`);
  });

  it("claims only the lanes that it serves", async () => {
    const { engine } = await cluster.node();
    await cluster.enqueue("foreign", [1]);
    await cluster.enqueue("own", [1]);
    let done = 0;
    await engine.attach([worker("own", () => void done++)]);
    await engine.start();
    await until(() => done === 1);
    await until(async () => (await cluster.jobs()).length === 1);
    const [job] = await cluster.jobs();
    assert.deepEqual([job?.lane, job?.attempt, job?.token], [queueLane("foreign"), 0, null]);
  });

  it("keeps to the concurrency of a queue, and to the node's where a queue has none", async () => {
    const { engine } = await cluster.node({ concurrency: 3 });
    const gates = { own: new Gate(), shared: new Gate() };
    await cluster.enqueue("own", Array(20).fill(0));
    await cluster.enqueue("shared", Array(20).fill(0));
    await engine.attach([
      worker("own", () => gates.own.pass(), { concurrency: 5 }),
      worker("shared", () => gates.shared.pass()),
    ]);
    await engine.start();
    await until(() => gates.own.waiting === 5 && gates.shared.waiting === 3);
    await sleep(150);
    assert.deepEqual([gates.own.waiting, gates.shared.waiting, engine.inFlight().length], [5, 3, 8]);
    assert.match(engine.inFlight()[0]!, /^own#\d+$/);
    gates.own.open();
    gates.shared.open();
    await until(() => cluster.settled());
  });

  it("moves every lane while others are stuck with all of the node's slots", async () => {
    const { engine } = await cluster.node({ concurrency: 2 });
    const gate = new Gate();
    let fast = 0;
    await cluster.enqueue("stuck", Array(50).fill(0));
    await engine.attach([worker("stuck", () => gate.pass()), worker("fast", () => void fast++)]);
    await engine.start();
    await until(() => gate.waiting === 2);
    await cluster.enqueue("fast", Array(100).fill(0));
    engine.wake([queueLane("fast")]);
    await until(() => fast === 100);
    gate.open();
    await until(() => cluster.settled());
  });

  it("shares a backlog between nodes where jobs are slow", async () => {
    const gate = new Gate();
    const counts = [0, 0];
    await cluster.enqueue("slow", Array(8).fill(0));
    for (const index of [0, 1]) {
      const { engine } = await cluster.node({ concurrency: 4 });
      await engine.attach([worker("slow", () => { counts[index]!++; return gate.pass(); })]);
      await engine.start();
    }
    await until(() => gate.waiting === 8);
    assert.deepEqual(counts, [4, 4]);
    gate.open();
    await until(() => cluster.settled());
  });

  it("gives a job to each matching handler of its group once, on one node, in order of registration", async () => {
    const runs: string[] = [];
    for (const name of ["a", "b"]) {
      const { engine } = await cluster.node();
      await engine.attach([
        balanced("billing", "order.*", () => runs.push(`${name}:order.*`)),
        balanced("billing", "**", () => runs.push(`${name}:**`)),
        balanced("billing", "user.deleted", () => runs.push(`${name}:user.deleted`)),
        balanced("audit", "**", () => runs.push(`${name}:audit`)),
      ]);
      await engine.start();
    }
    await cluster.emitTo("billing", "order.*", "order.paid", {});
    await until(() => cluster.settled());
    const node = runs[0]!.slice(0, 1);
    assert.deepEqual(runs, [`${node}:order.*`, `${node}:**`]);
  });

  it("remembers groups in the database, for the time when their nodes are down", async () => {
    const { engine } = await cluster.node();
    await engine.attach([balanced("billing", "order.*", () => undefined), balanced("billing", "user.deleted", () => undefined)]);
    await engine.attach([balanced("billing", "order.*", () => undefined)]);
    const groups = await cluster.storage.query("SELECT grp, pattern, regex IS NULL AS plain FROM _chimpbase_mesh_groups ORDER BY pattern");
    assert.deepEqual(groups, [
      { grp: "billing", pattern: "order.*", plain: false },
      { grp: "billing", pattern: "user.deleted", plain: true },
    ]);
  });

  it("each handler of a job gets a payload of its own", async () => {
    const { engine } = await cluster.node();
    const seen: unknown[] = [];
    await engine.attach(["x.*", "**"].map((pattern) => balanced("g", pattern, (_scope, payload) => {
      seen.push({ ...(payload as object) });
      (payload as { touched?: boolean }).touched = true;
    })));
    await engine.start();
    await cluster.emitTo("g", "**", "x.y", { n: 1 });
    await until(() => seen.length === 2);
    assert.deepEqual(seen, [{ n: 1 }, { n: 1 }]);
  });

  it("runs a delayed job when it is due, not before", async () => {
    const { engine } = await cluster.node({ pollIntervalMs: 1_000 });
    let ranAt = 0;
    await engine.attach([worker("later", () => void (ranAt = Date.now()))]);
    const [row] = await cluster.storage.query<{ due: Date }>(
      `INSERT INTO _chimpbase_mesh_deferred (id, run_at, lane, queue, payload, headers, attempt, history, created_at)
       VALUES (nextval('_chimpbase_mesh_job_id'), clock_timestamp() + interval '300 milliseconds', $1, 'later', '1', '{}', 0, '[]', now())
       RETURNING run_at AS due`,
      [queueLane("later")],
    );
    await engine.start();
    await until(() => ranAt > 0);
    const late = ranAt - row!.due.getTime();
    assert.ok(late >= 0 && late < 200, `${late} ms late`);
  });

  it("gives prefetched jobs back when it drains, as if it had never claimed them", async () => {
    const { engine } = await cluster.node({ concurrency: 1, leaseMs: 5_000 });
    const gate = new Gate();
    let fast = 0;
    await cluster.enqueue("mixed", [...Array(50).fill("fast"), ...Array(400).fill("slow")]);
    await engine.attach([worker("mixed", (_scope, payload) => (payload === "slow" ? gate.pass() : void fast++))]);
    await engine.start();
    await until(async () => gate.waiting === 1 && (await cluster.jobs()).filter((job) => job.token !== null).length > 1);
    await engine.drain();
    const left = await cluster.jobs();
    assert.equal(left.filter((job) => job.token !== null).length, 1);
    assert.deepEqual(new Set(left.filter((job) => job.token === null).map((job) => job.attempt)), new Set([0]));
    gate.open();
    await until(async () => (await cluster.jobs()).length === 399);
    assert.equal(gate.waiting, 1);
  });

  it("leaves no row of a claim behind: not while it is idle, and not when it stops", async () => {
    const { engine } = await cluster.node({ pollIntervalMs: 50 });
    await engine.attach([worker("rows", () => undefined)]);
    await engine.start();
    await cluster.enqueue("rows", Array(200).fill(0));
    engine.wake([queueLane("rows")]);
    await until(() => cluster.settled());
    await until(async () => (await cluster.claims()) === 0);
    await cluster.enqueue("rows", Array(200).fill(0));
    engine.wake([queueLane("rows")]);
    await until(() => cluster.settled());
    await engine.stop();
    assert.equal(await cluster.claims(), 0);
  });

  it("claims no more than 500 jobs ahead of its free slots, however many wait", async () => {
    const { engine } = await cluster.node({ concurrency: 4, leaseMs: 30_000 });
    const gate = new Gate();
    await cluster.enqueue("many", [...Array(200).fill("fast"), ...Array(2_000).fill("slow")]);
    await engine.attach([worker("many", (_scope, payload) => (payload === "slow" ? gate.pass() : undefined))]);
    await engine.start();
    // Those that are done are held until their completion is written.
    await until(async () => gate.waiting === 4 && (await cluster.jobs()).length === 2_000);
    const held = (await cluster.jobs()).filter((job) => job.token !== null && job.holder !== null).length;
    assert.ok(held >= 4 && held <= 504, `${held} jobs are claimed`);
    await engine.drain();
    gate.open();
    await until(async () => (await cluster.jobs()).every((job) => job.token === null));
  });

  it("claims no more than 4 MiB ahead of its free slots, by the size of the jobs before", async () => {
    const { engine } = await cluster.node({ concurrency: 4, leaseMs: 30_000 });
    const gate = new Gate();
    const text = "x".repeat(512 * 1024);
    const jobs = (count: number, slow: boolean): unknown[] => Array.from({ length: count }, () => ({ slow, text }));
    await cluster.enqueue("large", [...jobs(20, false), ...jobs(40, true)]);
    await engine.attach([worker("large", (_scope, payload) => ((payload as { slow: boolean }).slow ? gate.pass() : undefined))]);
    await engine.start();
    await until(() => gate.waiting === 4);
    const held = (await cluster.jobs()).filter((job) => job.token !== null).length;
    assert.ok(held >= 4 && held <= 12, `${held} jobs of half a MiB are claimed`);
    await engine.drain();
    gate.open();
    await until(async () => (await cluster.jobs()).every((job) => job.token === null));
  });

  it("gives back what waits behind slow jobs, so that another node can take it", async () => {
    const { engine } = await cluster.node({ concurrency: 1, pollIntervalMs: 100 });
    const gate = new Gate();
    await cluster.enqueue("mixed", [...Array(50).fill("fast"), ...Array(100).fill("slow")]);
    await engine.attach([worker("mixed", (_scope, payload) => (payload === "slow" ? gate.pass() : undefined))]);
    await engine.start();
    await until(() => gate.waiting === 1);
    await until(async () => (await cluster.jobs()).filter((job) => job.token !== null).length === 1);
    gate.open();
    await until(() => cluster.settled());
  });

  it("detaches a handler after its jobs under way, and leaves the rest to others", async () => {
    const { engine } = await cluster.node();
    const gate = new Gate();
    const detach = await engine.attach([balanced("g", "x.y", () => gate.pass())]);
    await engine.start();
    await cluster.emitTo("g", "x.y", "x.y", 1);
    engine.wake([groupLane("g", "x.y")]);
    await until(() => gate.waiting === 1);
    let detached = false;
    const detaching = detach().then(() => (detached = true));
    await cluster.emitTo("g", "x.y", "x.y", 2);
    engine.wake([groupLane("g", "x.y")]);
    await sleep(150);
    assert.equal(detached, false);
    gate.open();
    await detaching;
    await until(async () => (await cluster.jobs()).length === 1);
    assert.equal(gate.waiting, 1);
  });

  it("refuses options that make no sense, naming handler, option and value", async () => {
    const { engine } = await cluster.node();
    await assert.rejects(engine.attach([worker("q", () => undefined, { concurrency: 0 })]), (error) => {
      assert.ok(error instanceof MeshConfigurationError);
      assert.match(error.message, /queue "q": option concurrency .* not 0/);
      return true;
    });
  });

  it("asks the database about once in a poll interval while there is nothing to do", async () => {
    const { engine, storage } = await cluster.node({ pollIntervalMs: 200 });
    await engine.attach([worker("idle", () => undefined), balanced("g", "**", () => undefined)]);
    let statements = 0;
    const query = storage.query.bind(storage);
    storage.query = ((...args: Parameters<typeof query>) => { statements++; return query(...args); }) as typeof storage.query;
    await engine.start();
    await sleep(1_000);
    // The claims of the start, then one look each 200 ms.
    assert.ok(statements <= 8, `${statements} statements`);
  });
});

describe("worker engine without Postgres", () => {
  let cluster: Cluster;
  before(async () => { cluster = await Cluster.open(); });
  after(() => cluster.close());

  it("goes on by itself when connections are back, and loses no completion", async () => {
    const { engine, storage } = await cluster.node({ pollIntervalMs: 50 });
    const runs = new Map<unknown, number>();
    await engine.attach([worker("robust", async (_scope, payload) => {
      runs.set(payload, (runs.get(payload) ?? 0) + 1);
      await sleep(1);
    })]);
    await cluster.enqueue("robust", Array.from({ length: 300 }, (_, index) => index));
    const query = storage.query.bind(storage);
    let broken = false;
    storage.query = ((...args: Parameters<typeof query>) => (broken ? Promise.reject(new Error("no connection")) : query(...args))) as typeof storage.query;
    await engine.start();
    await until(() => runs.size >= 50);
    broken = true;
    await sleep(300);
    broken = false;
    await until(() => cluster.settled());
    assert.equal(runs.size, 300);
    assert.deepEqual(new Set(runs.values()), new Set([1]));
  });
});
