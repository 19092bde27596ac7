import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import type { OutgoingJob } from "#mesh/contract/messaging.js";
import { MeshOverloadedError, MeshPayloadTooLargeError, MeshValidationError } from "#mesh/errors.js";
import { patternToRegex } from "#mesh/runtime/event-pattern.js";
import { decodeJobHeaders } from "#mesh/runtime/job-headers.js";
import { balancedQueue, groupLane, queueLane } from "#mesh/storage/lanes.js";
import { until } from "../support/wait.js";
import { BusNodes, collect, event, payloads, type BusNode } from "./bus-nodes.js";

let nodes: BusNodes;
let node: BusNode;

beforeEach(async () => {
  nodes = await BusNodes.create();
  node = await nodes.add();
});

afterEach(() => nodes.close());

interface JobRow {
  id: string;
  lane: string;
  queue: string;
  grp: string | null;
  event: string | null;
  payload: string;
  headers: string;
}

const job = (queue: string, payload: unknown = null, more: Partial<OutgoingJob> = {}): OutgoingJob => ({ queue, payload, requestId: "r", meta: {}, ...more });
const jobs = (): Promise<JobRow[]> => node.storage.query<JobRow>(`SELECT id, lane, queue, grp, event, payload, headers FROM _chimpbase_mesh_jobs ORDER BY id`);
const count = async (table: string): Promise<number> => (await node.storage.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table}`))[0]!.n;
const rememberGroup = (group: string, pattern: string, beganAt = "-infinity"): Promise<unknown> =>
  node.storage.query("INSERT INTO _chimpbase_mesh_groups (grp, pattern, regex, began_at) VALUES ($1, $2, $3, $4)", [group, pattern, patternToRegex(pattern), beganAt]);

test("emits in flight at the same time share commits", async () => {
  await Promise.all(Array.from({ length: 2_000 }, (_, index) => node.outbox.emit(event("shared", index), "broadcast")));
  assert.ok((await count("_chimpbase_mesh_events")) < 10);
});

test("an emit that nobody takes resolves with no groups", async () => {
  assert.equal(await node.outbox.emit(event("void"), "all"), 0);
  assert.equal(await node.outbox.emit(event("void"), "balanced"), 0);
  assert.equal(await count("_chimpbase_mesh_jobs"), 0);
});

test("a balanced event is one job for each group, in the lane of the first pattern that matches where none began before others", async () => {
  await rememberGroup("billing", "order.*");
  await rememberGroup("billing", "order.paid");
  await rememberGroup("billing", "**");
  await rememberGroup("mail", "order.paid");
  await rememberGroup("users", "user.*");
  const own = event("order.paid", { total: 3 }, { requestId: "r-1", meta: { tenant: "x" } });
  const [first, second] = await Promise.all([node.outbox.emit(own, "all"), node.outbox.emit(event("audit"), "balanced")]);
  assert.deepEqual([first, second], [2, 1]);
  const rows = await jobs();
  assert.deepEqual(
    rows.map(({ lane, queue, grp, event: name }) => [name, grp, queue, lane].join()).sort(),
    [
      ["audit", "billing", balancedQueue("audit"), groupLane("billing", "**")].join(),
      ["order.paid", "billing", balancedQueue("order.paid"), groupLane("billing", "**")].join(),
      ["order.paid", "mail", balancedQueue("order.paid"), groupLane("mail", "order.paid")].join(),
    ],
  );
  const paid = rows.filter(({ event: name }) => name === "order.paid").map(({ payload, headers }) => [JSON.parse(payload), decodeJobHeaders(headers)] as const);
  const { id } = paid[0]![1];
  assert.match(id!, /^[0-9a-f-]{36}$/);
  for (const each of paid) assert.deepEqual(each, [{ total: 3 }, { id, requestId: "r-1", meta: { tenant: "x" }, nodeId: node.nodeId }]);
});

test("of patterns that match, the one that a node began last to serve gets the event, whatever its name", async () => {
  await rememberGroup("billing", "**", "2026-01-01");
  await rememberGroup("billing", "order.paid", "2026-01-02");
  await rememberGroup("billing", "order.*");
  await node.outbox.emit(event("order.paid"), "balanced");
  await node.outbox.emit(event("order.sent"), "balanced");
  assert.deepEqual((await jobs()).map(({ lane }) => lane), [groupLane("billing", "order.paid"), groupLane("billing", "**")]);
});

test("a group that comes for an event which none took before gets it from the first commit on", async () => {
  assert.equal(await node.outbox.emit(event("later", 0), "all"), 0);
  assert.equal(await node.outbox.emit(event("later", 1), "all"), 0);
  await rememberGroup("g", "later");
  const results = await Promise.all([
    node.outbox.emit(event("later", 2), "all"),
    node.outbox.emit(event("never", 3), "all"),
    node.outbox.enqueue(job("q", 4)),
    node.outbox.emit(event("later", 5), "balanced"),
    node.outbox.emit(event("later", 6), "broadcast"),
  ]);
  const ids = (await jobs()).map(({ id }) => id);
  assert.deepEqual(results, [1, 0, results[2], 1, 0]);
  assert.ok(ids.includes(results[2] as string));
  assert.deepEqual((await jobs()).map(({ payload }) => payload).sort(), ["2", "4", "5"]);
  assert.equal(await node.outbox.emit(event("later", 7), "all"), 1);
  assert.equal(await node.outbox.emit(event("never", 8), "all"), 0);
});

test("in a transaction, too, a group gets an event which none took before", async () => {
  assert.equal(await node.outbox.emit(event("later"), "all"), 0);
  await rememberGroup("g", "la*er");
  await rememberGroup("g", "*");
  await node.storage.transaction(async (tx) => assert.equal(await node.outbox.emit(event("later"), "all", tx), 1));
  assert.equal(await count("_chimpbase_mesh_jobs"), 1);
});

test("reach decides who gets an event", async () => {
  await rememberGroup("g", "e");
  const received = collect(node, "e");
  await node.outbox.emit(event("e", "balanced"), "balanced");
  assert.equal(await node.outbox.emit(event("e", "broadcast"), "broadcast"), 0);
  await node.outbox.emit(event("e", "all"), "all");
  await until(() => received.length === 2);
  assert.deepEqual(payloads(received), ["broadcast", "all"]);
  assert.deepEqual((await jobs()).map(({ payload }) => payload), ['"balanced"', '"all"']);
});

test("jobs keep the order of calls, and each call gets its own job's id", async () => {
  const ids = await Promise.all(Array.from({ length: 500 }, (_, index) => node.outbox.enqueue(job(`q${index % 3}`, index))));
  const rows = await jobs();
  assert.deepEqual(rows.map(({ id }) => id), ids);
  assert.deepEqual(rows.map(({ payload }) => payload), Array.from({ length: 500 }, (_, index) => String(index)));
  assert.deepEqual({ ...rows[1], id: "", headers: "" }, { id: "", lane: queueLane("q1"), queue: "q1", grp: null, event: null, payload: "1", headers: "" });
  assert.deepEqual(decodeJobHeaders(rows[1]!.headers), { requestId: "r", meta: {}, nodeId: node.nodeId });
});

test("a delayed job waits among the deferred, by the database's clock", async () => {
  const [now, later] = await Promise.all([node.outbox.enqueue(job("mail")), node.outbox.enqueue(job("mail", "x", { delayMs: 60_000 }))]);
  const sql = "SELECT id, lane, payload, attempt, history, extract(epoch from run_at - clock_timestamp())::float8 AS seconds FROM _chimpbase_mesh_deferred";
  const [{ seconds, ...rest }] = (await node.storage.query(sql)) as [{ seconds: number }];
  assert.deepEqual(rest, { id: later, lane: "q:mail", payload: '"x"', attempt: 0, history: "[]" });
  assert.ok(seconds > 50 && seconds <= 60);
  assert.deepEqual((await jobs()).map(({ id }) => id), [now]);
});

test("events and jobs of every kind share one commit", async () => {
  await rememberGroup("g", "e");
  await Promise.all([
    node.outbox.emit(event("e"), "all"),
    node.outbox.enqueue(job("q")),
    node.outbox.enqueue(job("q", null, { delayMs: 1_000 })),
  ]);
  const sql = `SELECT count(DISTINCT xmin)::int AS n FROM (SELECT xmin::text FROM _chimpbase_mesh_events UNION ALL SELECT xmin::text FROM _chimpbase_mesh_jobs
    UNION ALL SELECT xmin::text FROM _chimpbase_mesh_deferred) AS row`;
  assert.deepEqual(await node.storage.query(sql), [{ n: 1 }]);
});

test("undefined is sent as null; what JSON cannot hold is refused at once, naming event and reason", async () => {
  const received = collect(node, "odd");
  const circular: Record<string, unknown> = {};
  circular["self"] = circular;
  await node.outbox.emit(event("odd", undefined), "broadcast");
  for (const bad of [circular, 10n, () => 1, Symbol("s"), { toJSON() { throw new Error("no"); } }]) {
    await assert.rejects(node.outbox.emit(event("odd", bad), "broadcast"), { code: "PAYLOAD_NOT_SERIALIZABLE", status: 400, retryable: false, message: /event "odd"/ });
  }
  await until(() => received.length === 1);
  assert.deepEqual(payloads(received), [null]);
});

test("a payload over 1 MiB is refused, naming size and limit", async () => {
  const big = "ü".repeat(524_288);
  await assert.rejects(node.outbox.emit(event("big", big), "broadcast"), (error: Error) => error instanceof MeshPayloadTooLargeError && /1048578 .* 1048576/.test(error.message));
  await assert.rejects(node.outbox.enqueue(job("big", big)), MeshPayloadTooLargeError);
  await node.outbox.emit(event("big", big.slice(1)), "broadcast");
});

test("names and delays that cannot be stored are refused", async () => {
  for (const name of ["", "a\u0000b", "\ud800", "x".repeat(256), 5 as unknown as string]) {
    await assert.rejects(node.outbox.emit(event(name), "all"), MeshValidationError);
    await assert.rejects(node.outbox.enqueue(job(name)), MeshValidationError);
  }
  for (const delayMs of [-1, NaN, Infinity, "5" as unknown as number]) {
    await assert.rejects(node.outbox.enqueue(job("q", null, { delayMs })), (error: unknown) => error instanceof MeshValidationError && error.data[0]!.path === "delayMs");
  }
});

test("what is in a payload cannot break the SQL or its arrays", async () => {
  await rememberGroup("g", "odd.*");
  const received = collect(node, "odd.*");
  const odd = ["{}", '","', "\\", "\u0000", "\ud800", "'; DROP TABLE x; --", "NULL", "", "\n\t", "𝒳", "$1"];
  await Promise.all(odd.map((payload) => node.outbox.emit(event(`odd.${odd.indexOf(payload)}'"\\`, payload), "all")));
  await until(() => received.length === odd.length);
  assert.deepEqual(payloads(received), odd);
  assert.deepEqual((await jobs()).map(({ payload }) => JSON.parse(payload) as unknown), odd);
});

test("one message that the database refuses does not take its batch along", async () => {
  await node.storage.query("ALTER TABLE _chimpbase_mesh_jobs ADD CONSTRAINT no_poison CHECK (payload <> '\"poison\"')");
  const received = collect(node, "e");
  const sent = Array.from({ length: 64 }, (_, index) => [
    node.outbox.enqueue(job("q", index === 17 ? "poison" : index)),
    node.outbox.emit(event("e", index), "broadcast"),
  ]).flat();
  const outcomes = await Promise.allSettled<unknown>(sent);
  assert.deepEqual(outcomes.flatMap(({ status }, index) => (status === "rejected" ? [index] : [])), [34]);
  assert.equal((await jobs()).length, 63);
  await until(() => received.length === 64);
  assert.deepEqual(payloads(received), Array.from({ length: 64 }, (_, index) => index));
});

test("what a transaction emits and enqueues comes with its commit, in order", async () => {
  await rememberGroup("g", "in.tx");
  const received = collect(node, "in.tx");
  await node.storage.transaction(async (tx) => {
    assert.equal(await node.outbox.emit(event("in.tx", 1), "all", tx), 1);
    await Promise.all([2, 3].map((index) => node.outbox.emit(event("in.tx", index), "all", tx)));
    await node.outbox.enqueue(job("q"), tx);
    await node.outbox.emit(event("in.tx", "outside"), "broadcast");
    await until(() => received.length === 1);
    assert.equal(await count("_chimpbase_mesh_jobs"), 0);
  });
  await until(() => received.length === 4);
  assert.deepEqual(payloads(received), ["outside", 1, 2, 3]);
  assert.equal(await count("_chimpbase_mesh_jobs"), 4);
});

test("what a transaction or a savepoint takes back never arrives", async () => {
  const received = collect(node, "in.tx");
  const failing = node.storage.transaction(async (tx) => {
    await node.outbox.emit(event("in.tx", "lost"), "all", tx);
    throw new Error("no");
  });
  await assert.rejects(failing, /no/);
  await node.storage.transaction(async (tx) => {
    await tx.transaction(async (savepoint) => {
      await node.outbox.emit(event("in.tx", "lost"), "all", savepoint);
      throw new Error("no");
    }).catch(() => undefined);
    await node.outbox.emit(event("in.tx", "kept"), "all", tx);
  });
  await until(() => received.length === 1);
  assert.deepEqual(payloads(received), ["kept"]);
});

test("an emit that the caller does not wait for commits with its transaction all the same", async () => {
  const received = collect(node, "in.tx");
  let emitted: Promise<number> | undefined;
  await node.storage.transaction(async (tx) => {
    emitted = node.outbox.emit(event("in.tx"), "broadcast", tx);
  });
  await emitted;
  await until(() => received.length === 1, { timeoutMs: 1_000 });
});

test("more than 10000 waiting messages are refused at once; those accepted are written", async () => {
  const sent = Array.from({ length: 10_050 }, (_, index) => node.outbox.emit(event("much", index), "balanced"));
  const outcomes = await Promise.allSettled(sent);
  const refused = outcomes.filter((outcome) => outcome.status === "rejected");
  assert.equal(refused.length, 50);
  assert.ok(refused.every(({ reason }) => reason instanceof MeshOverloadedError));
  await node.outbox.emit(event("much"), "balanced");
});

test("more than 64 MiB of waiting messages are refused at once; those accepted are written", async () => {
  const payload = "x".repeat(1024 * 1024 - 2);
  const outcomes = await Promise.allSettled(Array.from({ length: 66 }, () => node.outbox.emit(event("large", payload), "broadcast")));
  const refused = outcomes.filter((outcome) => outcome.status === "rejected");
  assert.ok(refused.length >= 2 && refused.length < 10, `${refused.length} are refused`);
  assert.ok(refused.every(({ reason }) => reason instanceof MeshOverloadedError));
});

test("10000 callers that each send again as soon as they are answered are not too many", async () => {
  await Promise.all(Array.from({ length: 10_000 }, async () => {
    for (let round = 0; round < 2; round++) await node.outbox.emit(event("much"), "balanced");
  }));
});

test("close writes what is waiting, and refuses what comes after", async () => {
  const sent = Promise.all(Array.from({ length: 1_500 }, (_, index) => node.outbox.enqueue(job("q", index))));
  await node.outbox.close();
  await sent;
  assert.equal(await count("_chimpbase_mesh_jobs"), 1_500);
  await assert.rejects(node.outbox.emit(event("late"), "all"), { code: "OUTBOX_CLOSED", retryable: true });
});
