import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { HistoryEntry } from "#mesh/runtime/job-failure.js";
import { soloLane } from "#mesh/runtime/lane.js";
import { queueLane } from "#mesh/storage/lanes.js";
import type { Scope } from "#mesh/contract/registration.js";
import { until } from "../support/wait.js";
import { Cluster, Gate, sleep, worker } from "./worker-nodes.js";

const CHILD = fileURLToPath(new URL("worker-child.js", import.meta.url));

/** With looks as far apart as they may be, their distance is what a busy machine may take longer. */
const TAKEOVER = { leaseMs: 2_000, pollIntervalMs: 1_000 };

interface Child {
  readonly process: ChildProcess;
  readonly lines: unknown[];
}

describe("leases", () => {
  let cluster: Cluster;
  let children: Child[];
  beforeEach(async () => {
    cluster = await Cluster.open();
    children = [];
  });
  afterEach(async () => {
    for (const child of children) await kill(child);
    await cluster.close();
  });

  function spawnChild(queue: string, leaseMs: number, behaviour: string): Child {
    const child = { process: spawn(process.execPath, [CHILD, cluster.database.url, queue, String(leaseMs), behaviour], { stdio: ["ignore", "pipe", "inherit"] }), lines: [] as unknown[] };
    createInterface({ input: child.process.stdout! }).on("line", (line) => child.lines.push(JSON.parse(line)));
    children.push(child);
    return child;
  }

  async function kill(child: Child): Promise<void> {
    if (child.process.exitCode !== null || child.process.signalCode !== null) return;
    child.process.kill("SIGKILL");
    await once(child.process, "exit");
  }

  it("are extended while a handler runs, so that nobody takes the job over", async () => {
    const runs: number[] = [];
    for (const index of [0, 1]) {
      const { engine } = await cluster.node({ leaseMs: 300 });
      await engine.attach([worker("long", async () => { runs.push(index); await sleep(1_200); })]);
      await engine.start();
    }
    await cluster.enqueue("long", [1]);
    await until(() => cluster.settled());
    assert.equal(runs.length, 1);
  });

  it("a stale holder can neither complete nor fail the job, and its handler is told", async () => {
    for (const outcome of ["complete", "fail"]) {
      const { engine } = await cluster.node({ leaseMs: 300 });
      const gate = new Gate();
      let scope: Scope | undefined;
      await engine.attach([worker(outcome, async (given) => {
        scope = given;
        await gate.pass();
        if (outcome === "fail") throw new Error("too late");
      })]);
      await engine.start();
      await cluster.enqueue(outcome, [1]);
      await until(() => gate.waiting === 1);
      await cluster.steal();
      await until(() => scope?.cancellation.aborted);
      assert.equal((scope!.cancellation.reason as { code: string }).code, "LEASE_LOST");
      gate.open();
      await until(() => engine.inFlight().length === 0);
      await engine.stop();
      const [job] = await cluster.jobs();
      assert.equal(job?.holder, "thief");
      assert.equal(job?.history, "[]");
      await cluster.storage.query("DELETE FROM _chimpbase_mesh_jobs");
    }
  });

  it("a holder that learns of the loss only when it completes changes nothing", async () => {
    const { engine } = await cluster.node({ leaseMs: 60_000 });
    const gate = new Gate();
    await engine.attach([worker("q", () => gate.pass())]);
    await engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => gate.waiting === 1);
    await cluster.steal();
    gate.open();
    await until(() => engine.inFlight().length === 0);
    await engine.stop();
    assert.equal((await cluster.jobs())[0]?.holder, "thief");
  });

  it("the jobs of a killed process run elsewhere within the lease", async () => {
    await cluster.enqueue("q", ["a", "b"]);
    const child = spawnChild("q", TAKEOVER.leaseMs, "wait");
    await until(() => child.lines.length === 2);
    const { engine } = await cluster.node(TAKEOVER);
    const seen: unknown[] = [];
    await engine.attach([worker("q", (_scope, payload) => seen.push(payload))]);
    await engine.start();
    await kill(child);
    const killedAt = performance.now();
    await until(() => seen.length === 2);
    const tookMs = performance.now() - killedAt;
    assert.ok(tookMs < TAKEOVER.leaseMs, `${tookMs} ms`);
    assert.deepEqual(seen.sort(), ["a", "b"]);
    await until(() => cluster.settled());
  });

  it("a job of a frozen process runs elsewhere within the lease, and the process can neither complete nor commit when it wakes", async () => {
    await cluster.storage.query("CREATE TABLE effects (payload TEXT)");
    await cluster.enqueue("q", ["a"]);
    const child = spawnChild("q", TAKEOVER.leaseMs, "transaction");
    await until(() => child.lines.length === 1);
    child.process.kill("SIGSTOP");
    const frozenAt = performance.now();
    const { engine } = await cluster.node(TAKEOVER);
    const gate = new Gate();
    await engine.attach([worker("q", async (scope) => {
      await scope.session!.query("INSERT INTO effects VALUES ('taken over')");
      await gate.pass();
    })]);
    await engine.start();
    await until(() => gate.waiting === 1);
    const tookMs = performance.now() - frozenAt;
    assert.ok(tookMs < TAKEOVER.leaseMs, `${tookMs} ms`);
    child.process.kill("SIGCONT");
    // Its handler has ended when it has nothing in flight any more, and the job is still the other's.
    await until(() => {
      child.process.kill("SIGTERM");
      return JSON.stringify(child.lines.at(-1)) === '{"inFlight":[]}';
    });
    assert.equal((await cluster.jobs()).length, 1);
    assert.deepEqual(await cluster.deferred(), []);
    gate.open();
    await until(() => cluster.settled());
    assert.deepEqual(await cluster.storage.query("SELECT * FROM effects"), [{ payload: "taken over" }]);
  });

  it("a transaction that idles longer than the lease in a living process goes on, nested or not", async () => {
    const { engine } = await cluster.node({ leaseMs: 300 });
    const other = await cluster.node({ leaseMs: 300 });
    await cluster.storage.query("CREATE TABLE effects (payload TEXT)");
    let runs = 0;
    const registration = worker("q", async ({ session }) => {
      runs++;
      await session!.query("INSERT INTO effects VALUES ('outer')");
      await sleep(700);
      await session!.transaction(async (tx) => {
        await tx.query("INSERT INTO effects VALUES ('inner')");
        await sleep(700);
      });
    });
    for (const node of [engine, other.engine]) {
      await node.attach([registration]);
      node.start();
    }
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.equal(runs, 1);
    assert.equal((await cluster.storage.query("SELECT * FROM effects")).length, 2);
  });

  it("a job lost with its last attempt is a dead letter whose history says so", async () => {
    const { engine } = await cluster.node({ maxAttempts: 3 });
    await engine.attach([worker("q", () => assert.fail("must not run"))]);
    await cluster.enqueue("q", [1]);
    await cluster.storage.query("UPDATE _chimpbase_mesh_jobs SET attempt = 2");
    await cluster.steal("dead node", -1_000);
    await engine.start();
    await until(() => cluster.settled());
    const [dead] = await cluster.deadLetters();
    const [entry] = JSON.parse(dead!.history) as HistoryEntry[];
    assert.deepEqual([entry?.attempt, entry?.nodeId, entry?.error.code], [3, "dead node", "LEASE_LOST"]);
  });

  it("a job that kills its process dies alone: those claimed along with it survive", async () => {
    await cluster.enqueue("q", ["poison", ...Array.from({ length: 6 }, (_, index) => index)]);
    const seen: unknown[] = [];
    while (!(await cluster.settled())) {
      const child = spawnChild("q", 400, "suicide");
      // Its streams are at their end then, too.
      await Promise.race([once(child.process, "close"), until(() => cluster.settled())]);
      await kill(child);
      seen.push(...child.lines);
    }
    assert.equal(seen.filter((payload) => payload === "poison").length, 3);
    const dead = await cluster.deadLetters();
    assert.equal(dead.length, 1);
    assert.equal(new Set(seen).size, 7);
  });

  it("jobs lost twice run one at a time on a node", async () => {
    const { engine } = await cluster.node();
    const gate = new Gate();
    await cluster.insert(soloLane(queueLane("q")), "q", null, null, ["1", "2", "3"]);
    await cluster.enqueue("q", [4]);
    await engine.attach([worker("q", () => gate.pass())]);
    await engine.start();
    await until(() => gate.waiting === 2);
    await sleep(200);
    assert.equal(gate.waiting, 2);
    gate.open();
    await until(() => cluster.settled());
  });

  it("are given up at stop, rolled back, for others to take at once", async () => {
    const { engine } = await cluster.node();
    await cluster.storage.query("CREATE TABLE effects (payload TEXT)");
    let reason: unknown;
    let written = false;
    await engine.attach([worker("q", async ({ session, cancellation }) => {
      cancellation.onAbort((given) => (reason = given));
      await session!.query("INSERT INTO effects VALUES ('half')");
      written = true;
      await sleep(3_000);
    })]);
    await engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => written);
    await engine.drain();
    await engine.stop();
    assert.equal((reason as { code: string }).code, "CANCELLED");
    const second = await cluster.node({ pollIntervalMs: 50 });
    let taken = 0;
    await second.engine.attach([worker("q", () => void taken++)]);
    await second.engine.start();
    await until(() => taken === 1, { timeoutMs: 1_000 });
    assert.deepEqual(await cluster.storage.query("SELECT * FROM effects"), []);
  });

  it("leave no row behind on a node that stops, even where its claim was locked when its jobs ended", async () => {
    const { engine } = await cluster.node({ pollIntervalMs: 20 });
    const gate = new Gate();
    let ran = 0;
    await engine.attach([worker("q", async () => { await gate.pass(); ran++; })]);
    await engine.start();
    await cluster.enqueue("q", [0]);
    engine.wake([queueLane("q")]);
    await until(() => gate.waiting === 1);
    await cluster.storage.transaction(async (tx) => {
      await tx.query("SELECT FROM _chimpbase_mesh_claims FOR UPDATE");
      gate.open();
      await until(() => cluster.settled());
      // Looks that would delete the row pass it by.
      await sleep(200);
    });
    assert.equal(ran, 1);
    await engine.stop();
    assert.equal(await cluster.claims(), 0);
  });
});
