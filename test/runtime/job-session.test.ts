import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { MeshError } from "@chimpbase/mesh";
import type { OwnedTransaction, Session, Storage, Transaction } from "#mesh/contract/storage.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";
import { balanced, Cluster, Gate, sleep, worker, type TestNode } from "./worker-nodes.js";

describe("the database in a job", () => {
  let cluster: Cluster;
  let node: TestNode;
  beforeEach(async () => {
    cluster = await Cluster.open();
    node = await cluster.node();
    await cluster.storage.query("CREATE TABLE effects (payload TEXT)");
  });
  afterEach(() => cluster.close());

  const effects = async (): Promise<string[]> =>
    (await cluster.storage.query<{ payload: string }>("SELECT payload FROM effects")).map((row) => row.payload);

  const write = (session: Session | undefined, payload: string) => session!.query("INSERT INTO effects VALUES ($1)", [payload]);

  it("is written once however often the handler fails after it", async () => {
    let runs = 0;
    await node.engine.attach([worker("q", async ({ session }) => {
      await write(session, `run ${++runs}`);
      if (runs < 3) throw new Error("after the write");
    })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.deepEqual(await effects(), ["run 3"]);
  });

  it("is one transaction for all handlers of a job", async () => {
    let runs = 0;
    await node.engine.attach([
      balanced("g", "x.y", ({ session }) => write(session, "first")),
      balanced("g", "**", async ({ session }) => {
        await write(session, "second");
        if (++runs === 1) throw new Error("no");
      }),
    ]);
    await node.engine.start();
    await cluster.emitTo("g", "x.y", "x.y", 1);
    await until(() => cluster.settled());
    assert.deepEqual(await effects(), ["first", "second"]);
  });

  it("gets one transaction however many first uses come at once, and none where nothing comes", async () => {
    let begun = 0;
    const begin = node.storage.begin.bind(node.storage);
    node.storage.begin = (options) => { begun++; return begin(options); };
    await node.engine.attach([
      worker("many", ({ session }) => Promise.all([write(session, "a"), write(session, "b"), session!.joinTransaction()])),
      worker("none", () => undefined),
    ]);
    await node.engine.start();
    await cluster.enqueue("many", [1]);
    await cluster.enqueue("none", [1]);
    await until(() => cluster.settled());
    assert.equal(begun, 1);
    assert.deepEqual((await effects()).sort(), ["a", "b"]);
  });

  it("works on the pool, outside any transaction, where the handler turned it off", async () => {
    let joined: unknown = "not asked";
    let runs = 0;
    await node.engine.attach([worker("q", async ({ session }) => {
      joined = await session!.joinTransaction();
      await write(session, `run ${++runs}`);
      if (runs === 1) throw new Error("after the write");
    }, { transaction: false })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.equal(joined, null);
    assert.deepEqual(await effects(), ["run 1", "run 2"]);
  });

  it("is closed to a job that another node has taken over", async () => {
    const gate = new Gate();
    let error: unknown;
    await node.engine.attach([worker("q", async ({ session }) => {
      await gate.pass();
      await write(session, "stale").catch((thrown: unknown) => (error = thrown));
    })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => gate.waiting === 1);
    await cluster.steal();
    gate.open();
    await until(() => error);
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, "LEASE_LOST");
    await node.engine.stop();
    assert.deepEqual(await effects(), []);
    assert.equal((await cluster.jobs())[0]?.holder, "thief");
  });

  it("is closed when the handler has ended: what was not awaited never goes to the pool", async () => {
    let late: Promise<unknown> | undefined;
    const gate = new Gate();
    await node.engine.attach([worker("q", ({ session }) => {
      late = gate.pass().then(() => write(session, "late"));
      late.catch(() => undefined);
    })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    gate.open();
    await assert.rejects(late!, { code: "TRANSACTION_CLOSED" });
    assert.deepEqual(await effects(), []);
  });

  it("includes a first use that nobody awaited", async () => {
    await node.engine.attach([worker("q", ({ session }) => void write(session, "floating"))]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.deepEqual(await effects(), ["floating"]);
  });

  it("fails the attempt where a handler passes over a failed statement", async () => {
    let runs = 0;
    await node.engine.attach([worker("q", async ({ session }) => {
      await write(session, `run ${++runs}`);
      if (runs === 1) await session!.query("SELECT 1 / 0").catch(() => undefined);
    })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.deepEqual(await effects(), ["run 2"]);
  });

  it("runs hooks after the commit of the job, and not where it failed", async () => {
    const hooks: number[] = [];
    let runs = 0;
    await node.engine.attach([worker("q", async ({ session }) => {
      const run = ++runs;
      const tx = (await session!.joinTransaction()) as Transaction;
      tx.afterCommit(() => void hooks.push(run));
      if (run === 1) throw new Error("no");
    })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.deepEqual(hooks, [2]);
  });

  it("loses its backend in the middle: the attempt fails, and the next one writes", async () => {
    let runs = 0;
    await node.engine.attach([worker("q", async ({ session }) => {
      await write(session, `run ${++runs}`);
      if (runs > 1) return;
      const [row] = await session!.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
      await cluster.storage.query("SELECT pg_terminate_backend($1)", [row!.pid]);
      await sleep(50);
    })]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.deepEqual(await effects(), ["run 2"]);
  });

  it("meets a dead connection and gets no other: the statement is told so, and the job runs again on the one connection of its node", async (t) => {
    const relay = await relayTo(cluster.database.url);
    t.after(() => relay.close());
    const behind = await cluster.node({}, 1, false, relay.url);
    const failures: unknown[] = [];
    let runs = 0;
    await behind.engine.attach([worker("q", async ({ session }) => {
      if (++runs === 1) relay.cutWhen = (sent) => sent.includes("BEGIN") && (void relay.cut(), true);
      await write(session, `run ${runs}`).catch((error: unknown) => { failures.push(error); throw error; });
    })]);
    await behind.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => failures.length > 0);
    relay.cutWhen = () => false;
    await relay.open();
    await until(() => cluster.settled());
    assert.deepEqual(failures.map((error) => (error as MeshError).code), ["DATABASE_UNAVAILABLE"]);
    assert.deepEqual(await effects(), ["run 2"]);
    await until(async () => behind.engine.inFlight().length === 0 && (await cluster.claims()) === 0);
  });

  /** The next commits of the node go by `commit`. */
  function onCommit(storage: Storage, commit: (tx: OwnedTransaction, real: () => Promise<void>) => Promise<void>): void {
    const begin = storage.begin.bind(storage);
    storage.begin = async (options) => {
      const tx = await begin(options);
      const real = tx.commit.bind(tx);
      tx.commit = () => commit(tx, real);
      return tx;
    };
  }

  it("a commit whose answer is lost counts as done where it was", async () => {
    let runs = 0;
    onCommit(node.storage, async (_tx, real) => {
      await real();
      throw new MeshError("lost", { code: "COMMIT_UNKNOWN" });
    });
    await node.engine.attach([worker("q", ({ session }) => write(session, `run ${++runs}`))]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    await until(() => node.engine.inFlight().length === 0);
    assert.deepEqual(await effects(), ["run 1"]);
    assert.equal(runs, 1);
  });

  it("a commit whose answer is lost is tried again where it did not happen", async () => {
    let runs = 0;
    onCommit(node.storage, async (tx, real) => {
      if (runs > 1) return real();
      const [row] = await tx.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
      await cluster.storage.query("SELECT pg_terminate_backend($1)", [row!.pid]);
      throw new MeshError("lost", { code: "COMMIT_UNKNOWN" });
    });
    await node.engine.attach([worker("q", ({ session }) => write(session, `run ${++runs}`))]);
    await node.engine.start();
    await cluster.enqueue("q", [1]);
    await until(() => cluster.settled());
    assert.deepEqual(await effects(), ["run 2"]);
  });
});
