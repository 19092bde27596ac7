import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { RESYNC_EVENT } from "#mesh/runtime/bus.js";
import { encodeWake } from "#mesh/runtime/wake.js";
import { withAdmin } from "../support/database.js";
import { until } from "../support/wait.js";
import { BusNodes, collect, event, payloads, type BusNode } from "./bus-nodes.js";

let nodes: BusNodes;

beforeEach(async () => {
  nodes = await BusNodes.create();
});

afterEach(() => nodes.close());

const databaseName = (): string => new URL(nodes.database.url).pathname.slice(1);

/** Cuts connections of this test's database, as a restart would. */
function terminate(which: "listening" | "all"): Promise<unknown> {
  const filter = which === "all" ? "true" : "application_name LIKE '%listen'";
  return withAdmin((admin) =>
    admin.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() AND ${filter}`, [databaseName()]),
  );
}

async function withClient<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: nodes.database.url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const insertRow = "INSERT INTO _chimpbase_mesh_events (node_id, events) VALUES ($1, $2)";
const rowOf = (name: string, payload: unknown): string => JSON.stringify([["00000000-0000-4000-8000-000000000000", name, payload, "r", {}]]);

/** Sends what an outbox sends after its commits. */
function look({ storage }: BusNode): Promise<unknown> {
  return storage.query("SELECT pg_notify($1, $2)", [storage.channel("mesh"), encodeWake({ nodeId: "x", events: "any", lanes: [], delayed: [] })[0]]);
}

/** Emits one after another until told to stop; resolves with the payloads that were accepted, in order. */
function emitUntil(node: BusNode, stop: () => boolean): Promise<number[]> {
  return (async () => {
    const accepted: number[] = [];
    for (let index = 0; !stop(); index++) {
      await node.outbox.emit(event("steady", index), "broadcast").then(() => accepted.push(index), () => sleep(10));
    }
    return accepted;
  })();
}

test("the listening connection dies while events flow: none is missed, doubled or out of order", async () => {
  const [a, b] = [await nodes.add(), await nodes.add()];
  const received = collect(b, "steady");
  let stop = false;
  const emitting = emitUntil(a, () => stop);
  for (let round = 0; round < 3; round++) {
    const before = received.length;
    await until(() => received.length > before + 20);
    await terminate("listening");
    await until(() => !b.bus.live);
    await until(() => b.bus.live);
  }
  stop = true;
  const accepted = await emitting;
  await until(() => received.length >= accepted.length);
  assert.deepEqual(payloads(received), accepted);
});

test("all connections die while events flow: what was accepted arrives once and in order", async () => {
  const [a, b] = [await nodes.add(), await nodes.add()];
  const received = collect(b, "steady");
  let stop = false;
  const emitting = emitUntil(a, () => stop);
  for (let round = 0; round < 3; round++) {
    const before = received.length;
    await until(() => received.length > before + 20);
    await terminate("all");
  }
  stop = true;
  const accepted = await emitting;
  await until(() => received.some(({ payload }) => payload === accepted.at(-1)));
  const seen = payloads(received) as number[];
  assert.equal(new Set(seen).size, seen.length, "none twice");
  assert.deepEqual(seen, [...seen].sort((x, y) => x - y), "in order");
  // An emit whose answer was lost may have been written: more may arrive than was accepted, never less.
  assert.deepEqual(accepted.filter((index) => !seen.includes(index)), []);
});

test("without any notification events arrive by polling", async () => {
  const b = await nodes.add({ retentionMs: 4_000 });
  const received = collect(b, "silent");
  const insert = (): Promise<unknown> => b.storage.query(insertRow, ["elsewhere", rowOf("silent", 1)]);
  let sent = 0;
  const arrives = async (timeoutMs: number): Promise<void> => {
    await insert();
    sent++;
    await until(() => received.length === sent, { timeoutMs });
  };
  // The look at the start, which is no poll, may still be under way and find the first.
  do await arrives(5_000);
  while (b.bus.live && sent < 3);
  assert.equal(b.bus.live, false, "what comes unannounced shows that LISTEN is deaf");
  await arrives(2_000);
  await b.outbox.emit(event("any"), "broadcast");
  await until(() => b.bus.live);
});

test("what comes unannounced shows that LISTEN is deaf, also where nobody here wants it", async () => {
  const b = await nodes.add({ retentionMs: 2_000 });
  const received = collect(b, "wanted");
  const insert = "INSERT INTO _chimpbase_mesh_events (node_id, names, events) VALUES ('elsewhere', '{unwanted}', $1)";
  await until(async () => {
    await b.storage.query(insert, [rowOf("unwanted", 1)]);
    return !b.bus.live;
  });
  assert.deepEqual(received, []);
});

test("a transaction that commits late is delivered, and holds nobody else back", async () => {
  const [a, b] = [await nodes.add(), await nodes.add()];
  const received = collect(b, "e");
  await withClient(async (late) => {
    await late.query("BEGIN");
    await late.query(insertRow, ["late", rowOf("e", "late")]);
    for (const payload of [1, 2, 3]) await a.outbox.emit(event("e", payload), "broadcast");
    await until(() => received.length === 3);
    await late.query("COMMIT");
    await a.outbox.emit(event("e", 4), "broadcast");
    await until(() => received.length === 5);
    assert.deepEqual(payloads(received), [1, 2, 3, "late", 4]);
  });
});

test("whatever transactions do side by side, each node gets what was committed, once", async () => {
  const [a, b, c] = [await nodes.add(), await nodes.add(), await nodes.add()];
  const received = [a, b, c].map((node) => collect(node, "mixed"));
  const committed: string[] = [];
  const work = async (node: BusNode, name: string): Promise<void> => {
    for (let round = 0; round < 15; round++) {
      const keep = Math.random() < 0.7;
      const marks = [`${name}.${round}.a`, `${name}.${round}.b`];
      await node.storage.transaction(async (tx) => {
        for (const mark of marks) {
          await node.outbox.emit(event("mixed", mark), "broadcast", tx);
          await sleep(Math.random() * 8);
        }
        if (!keep) throw new Error("rolled back");
      }).then(() => committed.push(...marks), () => undefined);
      const alone = `${name}.${round}.c`;
      await node.outbox.emit(event("mixed", alone), "broadcast");
      committed.push(alone);
    }
  };
  await Promise.all([a, b].flatMap((node, index) => ["x", "y", "z"].map((lane) => work(node, `${index}${lane}`))));
  await until(() => received.every((events) => events.length >= committed.length));
  for (const events of received) {
    const seen = payloads(events) as string[];
    assert.deepEqual([...seen].sort(), [...committed].sort());
    for (const lane of ["0x", "1z"]) {
      const own = (marks: readonly string[]): string[] => marks.filter((mark) => mark.startsWith(lane));
      assert.deepEqual(own(seen), own(committed), "what one caller does one after another comes in that order");
    }
  }
});

test("a backlog of many transactions is read in pages, with those that commit late in between", async () => {
  const b = await nodes.add();
  const received = collect(b, "page");
  await withClient(async (late) => {
    await late.query("BEGIN");
    await late.query(insertRow, ["late", rowOf("page", "late")]);
    await withClient(async (client) => {
      await client.query("CREATE PROCEDURE fill(row_text text) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..1700 LOOP INSERT INTO _chimpbase_mesh_events (node_id, events) VALUES ('filler', replace(row_text, '\"#\"', i::text)); COMMIT; END LOOP; END $$");
      await client.query("CALL fill($1)", [rowOf("page", "#")]);
    });
    await look(b);
    await until(() => received.length === 1_700);
    await late.query("COMMIT");
  });
  await look(b);
  await until(() => received.length === 1_701);
  assert.deepEqual(payloads(received), [...Array.from({ length: 1_700 }, (_, index) => index + 1), "late"]);
});

test("after a reconnect rows under a transaction id handed out again are found", async () => {
  const b = await nodes.add();
  const received = collect(b, "e");
  await b.outbox.emit(event("e", 1), "broadcast");
  await until(() => received.length === 1);
  await withClient((client) => client.query("INSERT INTO _chimpbase_mesh_events (node_id, events, xid) VALUES ($1, $2, '5'::xid8)", ["crashed", rowOf("e", 2)]));
  await terminate("listening");
  await until(() => received.length === 2);
  await b.outbox.emit(event("e", 3), "broadcast");
  await until(() => received.length === 3);
  assert.deepEqual(payloads(received), [1, 2, 3]);
});

test("forged and malformed notifications do nothing", async () => {
  const [a, b] = [await nodes.add(), await nodes.add()];
  const received = collect(b, "**");
  const wake = { nodeId: "x", events: "any", lanes: [], delayed: [] } as const;
  const malformed = ["", "x", "null", "[]", "{}", '{"nodeId":1}', "{".repeat(7_000), JSON.stringify({ ...wake, lanes: [7] })];
  const forged = [...malformed, ...encodeWake(wake), ...encodeWake({ ...wake, events: ["real", "none"] })];
  for (const payload of forged) await b.storage.query("SELECT pg_notify($1, $2)", [b.storage.channel("mesh"), payload]);
  await a.outbox.emit(event("real"), "broadcast");
  await until(() => received.length === 1);
  assert.deepEqual([received[0]!.name, b.lanes.length, b.bus.live], ["real", 0, true]);
});

test("a row that cannot be read is logged and passed over", async () => {
  const b = await nodes.add();
  const received = collect(b, "e");
  await withClient(async (client) => {
    for (const text of ["no json", "{}", "[[1]", "null"]) await client.query(insertRow, ["x", text]);
  });
  await b.outbox.emit(event("e"), "broadcast");
  await until(() => received.length === 1);
  await until(() => b.lines.length === 4);
  assert.ok(b.lines.every(({ msg }) => msg.includes("cannot be read")));
});

test("rows past the retention are deleted, those of a transaction that has just committed are not", async () => {
  const b = await nodes.add({ retentionMs: 1_000 });
  const received = collect(b, "e");
  const rows = async (): Promise<number> => (await b.storage.query<{ n: number }>("SELECT count(*)::int AS n FROM _chimpbase_mesh_events"))[0]!.n;
  await b.storage.transaction(async (tx) => {
    await b.outbox.emit(event("e", "late"), "broadcast", tx);
    await b.outbox.emit(event("e", 1), "broadcast");
    assert.equal(await rows(), 1);
    await until(async () => (await rows()) === 0);
  });
  await until(() => received.length === 2);
  assert.deepEqual(payloads(received), [1, "late"]);
  await until(async () => (await rows()) === 0);
});

test("a node that could not read for longer than the retention gets what is left, then a resync", async () => {
  const [a, b] = [await nodes.add(), await nodes.add({ retentionMs: 600 })];
  const [received, atA] = [collect(b, "**"), collect(a, RESYNC_EVENT)];
  const { query } = b.storage;
  Object.assign(b.storage, { query: () => Promise.reject(new Error("down")) });
  await a.outbox.emit(event("gone"), "broadcast");
  await sleep(800);
  await a.outbox.emit(event("left"), "broadcast");
  Object.assign(b.storage, { query });
  await until(() => received.some(({ name }) => name === RESYNC_EVENT));
  assert.deepEqual(received.map(({ name }) => name).slice(-2), ["left", RESYNC_EVENT]);
  const { payload, nodeId } = received.at(-1)!;
  const { sinceMs, ...rest } = payload as { sinceMs: number };
  assert.deepEqual([nodeId, rest], [b.nodeId, { nodeId: b.nodeId }]);
  assert.ok(sinceMs > 0 && sinceMs < received.at(-2)!.emittedAtMs);
  assert.equal(atA.length, 0);
});

test("a subscription that was behind for longer than the retention gets a resync too", async () => {
  const [a, b] = [await nodes.add(), await nodes.add({ retentionMs: 1_500 })];
  const resyncs = collect(b, RESYNC_EVENT);
  let open: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (open = resolve));
  b.bus.subscribe("block", () => gate);
  for (let round = 0; round < 3; round++) await Promise.all(Array.from({ length: 5_000 }, () => a.outbox.emit(event("block"), "broadcast")));
  await until(() => b.lines.some(({ msg }) => msg.includes("slower than its events")));
  await sleep(1_700);
  assert.equal(resyncs.length, 0);
  open();
  await until(() => resyncs.length === 1);
});

test("a start that fails leaves nothing open", async () => {
  const b = await nodes.add({ start: false });
  const { query } = b.storage;
  Object.assign(b.storage, { query: () => Promise.reject(new Error("down")) });
  await assert.rejects(b.bus.start(), /down/);
  Object.assign(b.storage, { query });
  const listening = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%listen'";
  await until(async () => (await b.storage.query(listening)).length === 0);
});

test("an idle bus asks the database less than once in three seconds", async () => {
  const b = await nodes.add();
  let queries = 0;
  const query = b.storage.query.bind(b.storage);
  Object.assign(b.storage, { query: (...args: Parameters<typeof query>) => (queries++, query(...args)) });
  await sleep(2_500);
  assert.ok(queries <= 1, `${queries} queries`);
});
