import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { digestLine, readDigest, type Digest } from "#mesh/mesh/digest.js";
import type { Discovery } from "#mesh/mesh/discovery.js";
import { until } from "../support/wait.js";
import { breakable, offering, RegistryFixture, stallable } from "./registry-fixture.js";

const ACTION = "v1.users.create";
const ids = (discovery: Discovery) => discovery.peers().map(({ nodeId }) => nodeId).sort();
const callable = (discovery: Discovery, action = ACTION) => discovery.candidates(action).map(({ nodeId }) => nodeId);
const hint = (nodeId: string) => ({ nodeId, rev: null, heartbeat: false });

test("the cache is seeded from the table, without this node and without the dead", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a", { metadata: { zone: "eu", cpuLoad: 0.5, $mesh: { rpcPath: "/rpc", rev: 3 } } });
  await fixture.node("dead", { ageMs: 31_000 });
  await fixture.node("self");
  const discovery = fixture.discovery();
  await discovery.start();
  const [peer, ...others] = discovery.peers();
  assert.deepEqual(others, []);
  assert.equal(peer?.nodeId, "a");
  assert.equal(peer.advertisedUrl, "http://a:80");
  assert.deepEqual(peer.metadata, { zone: "eu", cpuLoad: 0.5 });
  assert.deepEqual(peer.services, [{ name: "users", version: 1, actions: [ACTION], events: [] }]);
  assert.ok(Object.isFrozen(peer) && Object.isFrozen(discovery.peers()));
  assert.deepEqual({ ...discovery.candidate("a", ACTION) }, { nodeId: "a", advertisedUrl: "http://a", rpcPath: "/rpc", signed: false, wire: false, cpuLoad: 0.5 });
  assert.equal(discovery.candidate("a", "v1.users.remove"), undefined);
  assert.equal(discovery.candidate("b", ACTION), undefined);
  assert.ok(discovery.serves("v1.users") && discovery.serves(ACTION) && !discovery.serves("v2.users"));
});

test("a row without $mesh is a node that is called at the default path", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("foreign");
  const discovery = fixture.discovery();
  await discovery.start();
  assert.equal(discovery.candidates(ACTION)[0]?.rpcPath, "/__chimpbase/mesh/rpc");
});

test("an announcement makes the new node callable at once", async () => {
  await using fixture = await RegistryFixture.open();
  const discovery = fixture.discovery();
  await discovery.start();
  await fixture.node("a");
  discovery.hint(hint("a"));
  await until(() => callable(discovery).length === 1, { timeoutMs: 1_000 });
});

test("a leave drops the peer at once, and its connections with it", async () => {
  await using fixture = await RegistryFixture.open();
  const gone: string[] = [];
  await fixture.node("a");
  const discovery = fixture.discovery({ onGone: (nodeId) => void gone.push(nodeId) });
  await discovery.start();
  await fixture.remove("a");
  discovery.hint(hint("a"));
  await until(() => ids(discovery).length === 0, { timeoutMs: 1_000 });
  assert.deepEqual([gone, callable(discovery)], [["a"], []]);
});

test("forged hints neither add a node nor take one away", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  const discovery = fixture.discovery();
  await discovery.start();
  discovery.hint(hint("ghost"));
  discovery.hint(hint("a"));
  for (let i = 0; i < 500; i++) discovery.hint(hint(`ghost-${i}`));
  await fixture.node("b");
  discovery.hint(hint("b"));
  await until(() => ids(discovery).includes("b"));
  assert.deepEqual(ids(discovery), ["a", "b"]);
});

test("a changed row changes what the peer is called for", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  await fixture.node("b");
  const discovery = fixture.discovery();
  await discovery.start();
  const before = discovery.candidates(ACTION);
  await fixture.node("a", { services: offering("v1.orders.pay") });
  discovery.hint(hint("a"));
  await until(() => callable(discovery, "v1.orders.pay").length === 1);
  assert.deepEqual(callable(discovery), ["b"]);
  assert.deepEqual(before.map(({ nodeId }) => nodeId), ["a", "b"], "a list handed out earlier stays as it was");
});

test("a heartbeat that brings nothing new is not read", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a", { metadata: { $mesh: { rev: 7 } } });
  const discovery = fixture.discovery();
  await discovery.start();
  await fixture.node("a", { metadata: { zone: "new", $mesh: { rev: 7 } } });
  discovery.hint({ nodeId: "a", rev: 7, heartbeat: true });
  await fixture.node("b");
  discovery.hint({ nodeId: "b", rev: 1, heartbeat: true });
  await until(() => ids(discovery).includes("b"));
  assert.deepEqual(discovery.peers().find(({ nodeId }) => nodeId === "a")?.metadata, {});
});

test("what is read is bounded: all rows once a heartbeat, services when they change, nothing for a heartbeat that is old news", async () => {
  await using fixture = await RegistryFixture.open();
  const reads = { rows: 0, services: 0 };
  const storage = Object.create(fixture.storage, {
    query: { value: (...[sql, ...rest]: Parameters<typeof fixture.storage.query>) => {
      reads[sql.startsWith("SELECT node_id, md5") ? "services" : "rows"]++;
      return fixture.storage.query(sql, ...rest);
    } },
  }) as typeof fixture.storage;
  const names = Array.from({ length: 20 }, (_, i) => `n${i}`);
  for (const name of names) await fixture.node(name, { metadata: { $mesh: { rev: 1 } } });
  const discovery = fixture.discovery({ registry: fixture.registry(5_000, storage), heartbeatMs: 200, offlineAfterMs: 60_000 });
  await discovery.start();
  assert.deepEqual(reads, { rows: 1, services: 1 });
  const startedAt = performance.now();
  while (performance.now() - startedAt < 900) {
    for (const name of names) discovery.hint({ nodeId: name, rev: 1, heartbeat: true });
    await pause(10);
  }
  const beats = Math.ceil((performance.now() - startedAt) / 200);
  assert.ok(reads.rows >= 2 && reads.rows <= 1 + beats && reads.services === 1, JSON.stringify(reads));
});

/** What `nodeId` tells if it reads all rows now. */
async function digestOf(fixture: RegistryFixture, nodeId: string): Promise<Digest> {
  const { nowMs, rows } = await fixture.registry().readLive(30_000);
  return { nodeId, nowMs, lines: rows.map(digestLine) };
}

const SPEAKS = { metadata: { $mesh: { rev: 1 } } };

test("where nobody tells, the node does that has the lowest id of those whose heartbeats come", async () => {
  await using fixture = await RegistryFixture.open();
  const told: string[][] = [];
  await fixture.node("late", SPEAKS);
  await fixture.node("foreign");
  for (const nodeId of ["self", "z"]) await fixture.node(nodeId, SPEAKS);
  await using _beat = fixture.beating("foreign", "self", "z");
  const discovery = fixture.discovery({ heartbeatMs: 200, offlineAfterMs: 2_000, onDigest: (lines) => told.push(lines.map(({ nodeId }) => nodeId).sort()) });
  await discovery.start();
  await until(() => told.length > 1);
  assert.deepEqual(told[0], ["foreign", "late", "self", "z"]);
});

test("of two nodes that tell, the lower goes on; and the other when that one falls silent", async () => {
  await using fixture = await RegistryFixture.open();
  let told = 0;
  for (const nodeId of ["a", "self", "z"]) await fixture.node(nodeId, SPEAKS);
  await using _beat = fixture.beating("self", "z");
  const discovery = fixture.discovery({ heartbeatMs: 200, offlineAfterMs: 2_000, onDigest: () => told++ });
  await discovery.start();
  const hear = async (nodeId: string): Promise<number> => {
    const before = told;
    for (let n = 0; n < 6; n++) {
      discovery.digest(await digestOf(fixture, nodeId));
      await pause(100);
    }
    return told - before;
  };
  await until(() => told > 0);
  assert.ok(await hear("z") > 1);
  assert.equal(await hear("a"), 0);
  const before = told;
  await until(() => told > before + 1, { timeoutMs: 2_000 });
});

test("a node that is alone tells nobody", async () => {
  await using fixture = await RegistryFixture.open();
  let told = 0;
  await fixture.node("self");
  await using _beat = fixture.beating("self");
  const discovery = fixture.discovery({ heartbeatMs: 50, offlineAfterMs: 500, onDigest: () => told++ });
  await discovery.start();
  await pause(300);
  await fixture.node("other");
  discovery.hint(hint("other"));
  await until(() => told > 0);
  assert.equal(told, 1);
});

test("peers that would expire soon are not taken for gone by a read of others", async () => {
  await using fixture = await RegistryFixture.open();
  const gone: string[] = [];
  for (const [index, nodeId] of ["a", "b", "c", "d", "e", "f"].entries()) await fixture.node(nodeId, { ageMs: 29_500 - 10 * index });
  const slow = stallable(fixture.storage);
  const discovery = fixture.discovery({ registry: fixture.registry(5_000, slow.storage), onGone: (nodeId) => void gone.push(nodeId) });
  await discovery.start();
  const resume = slow.stall();
  await pause(515);
  await Promise.all(["b", "c", "d", "e", "f"].map((nodeId) => fixture.node(nodeId)));
  await pause(150);
  resume();
  await until(() => gone.length > 0);
  await pause(200);
  assert.deepEqual(gone, ["a"]);
});

test("when the database's clock has been set back, a peer that falls silent is dropped in time all the same", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a", { ageMs: -3_600_000 });
  const discovery = fixture.discovery({ heartbeatMs: 300, offlineAfterMs: 900 });
  await discovery.start();
  const { nowMs, lines } = await digestOf(fixture, "teller");
  discovery.digest({ nodeId: "teller", nowMs, lines: lines.map((line) => ({ ...line, lastHeartbeatMs: nowMs })) });
  await until(() => ids(discovery).length === 0 || discovery.peers()[0]!.lastHeartbeatMs <= nowMs);
  await fixture.remove("a");
  await until(() => ids(discovery).length === 0, { timeoutMs: 3_000 });
});

test("a load that came by a digest does not outlast the row that says otherwise", async () => {
  await using fixture = await RegistryFixture.open();
  const write = (cpuLoad: number) => fixture.node("a", { metadata: { cpuLoad } });
  await write(0);
  const discovery = fixture.discovery();
  await discovery.start();
  await write(1);
  discovery.digest(await digestOf(fixture, "a"));
  assert.equal(discovery.candidate("a", ACTION)?.cpuLoad, 1);
  await write(0);
  discovery.hint(hint("a"));
  await until(() => discovery.candidate("a", ACTION)?.cpuLoad === 0, { timeoutMs: 1_000 });
});

test("digests keep peers alive without a read, and bring their load", async () => {
  await using fixture = await RegistryFixture.open();
  let reads = 0;
  const storage = Object.create(fixture.storage, {
    query: { value: (...args: Parameters<typeof fixture.storage.query>) => (reads++, fixture.storage.query(...args)) },
  }) as typeof fixture.storage;
  const write = (cpuLoad: number) => Promise.all(["a", "b"].map((nodeId) => fixture.node(nodeId, { metadata: { cpuLoad, zone: "eu" } })));
  await write(0);
  const discovery = fixture.discovery({ registry: fixture.registry(5_000, storage), heartbeatMs: 300, offlineAfterMs: 900 });
  await discovery.start();
  discovery.suspect("a");
  await until(() => reads === 3);
  for (let n = 1; n <= 15; n++) {
    await write(n / 20);
    discovery.digest(await digestOf(fixture, "teller"));
    await pause(100);
  }
  assert.equal(reads, 3, "the first read of rows and of services, and that of the suspect");
  assert.deepEqual(callable(discovery), ["a", "b"], "a heartbeat clears suspicion");
  assert.deepEqual(discovery.peers().map(({ metadata }) => metadata), [{ cpuLoad: 0.75, zone: "eu" }, { cpuLoad: 0.75, zone: "eu" }]);
  assert.equal(discovery.candidate("b", ACTION)?.cpuLoad, 0.75);
  await until(() => ids(discovery).length === 0, { timeoutMs: 3_000, message: "without digests their silence is found" });
});

test("a digest from the past is not believed: the rows are read, and with them the database's clock", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  const discovery = fixture.discovery();
  await discovery.start();
  const { nowMs, lines } = await digestOf(fixture, "a");
  await fixture.node("b");
  discovery.digest({ nodeId: "a", nowMs: nowMs - 11_000, lines });
  await until(() => ids(discovery).length === 2, { timeoutMs: 2_000 });
});

test("what is new in a digest is read: unknown nodes, changed rows, rows that were corrupt for a while", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  await fixture.node("b");
  const discovery = fixture.discovery();
  await discovery.start();
  await fixture.node("a", { services: offering("v1.orders.pay") });
  await fixture.node("b", { services: "corrupt" });
  await fixture.node("c");
  discovery.digest(await digestOf(fixture, "teller"));
  await until(() => callable(discovery, "v1.orders.pay").length === 1 && callable(discovery).join() === "c");
  await fixture.node("b");
  discovery.digest(await digestOf(fixture, "teller"));
  await until(() => callable(discovery).length === 2);
});

test("a forged digest neither adds a node, nor changes one, nor takes one away, and no heartbeat in it is from the future", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  await fixture.node("silent", { ageMs: 1_000 });
  const discovery = fixture.discovery({ heartbeatMs: 400, offlineAfterMs: 1_600 });
  await discovery.start();
  const { nowMs, lines } = await digestOf(fixture, "a");
  const forged = [["ghost", nowMs, "x", 0], ["a", nowMs, "x", 1], ["silent", nowMs + 3_600_000, lines.find(({ nodeId }) => nodeId === "silent")!.stamp, 0.5], null, [1], ["b"], "c"];
  const event = { id: "1", name: "__chimpbase.mesh.info.heartbeat", requestId: "r", meta: {}, nodeId: "forger", emittedAtMs: nowMs, payload: { nodeId: "a", peers: forged } };
  assert.equal(readDigest({ ...event, payload: { nodeId: "forger", peers: forged } }), null, "a digest tells of its own node");
  discovery.digest(readDigest(event)!);
  await fixture.node("new");
  discovery.hint(hint("new"));
  await using _beat = fixture.beating("a", "new");
  await until(() => ids(discovery).includes("new"));
  assert.deepEqual(ids(discovery), ["a", "new", "silent"]);
  assert.deepEqual(discovery.candidate("a", ACTION)?.cpuLoad, 0);
  await until(() => !ids(discovery).includes("silent"), { timeoutMs: 3_000 });
  assert.deepEqual(ids(discovery), ["a", "new"]);
});

test("a draining or local-only peer, or one without a usable address, is seen but not called", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("draining", { metadata: { $mesh: { draining: true } } });
  await fixture.node("local", { url: null });
  await fixture.node("declared-local", { metadata: { $mesh: { transport: "local-only" } } });
  await fixture.node("ftp", { url: "ftp://files" });
  await fixture.node("password", { url: "http://me:s3cret@api" });
  await fixture.node("no-url", { url: "nonsense" });
  await fixture.node("bad-path", { metadata: { $mesh: { rpcPath: "@evil.example/" } } });
  const discovery = fixture.discovery();
  await discovery.start();
  assert.equal(ids(discovery).length, 7);
  assert.deepEqual(callable(discovery), []);
  assert.equal(discovery.candidate("draining", ACTION), undefined);
  assert.equal(fixture.warnings.length, 4);
});

test("a peer whose id fits no header is not called, and is reported once, however often it is read", async () => {
  await using fixture = await RegistryFixture.open();
  const odd = ["a;b", "a b", "a\r\nhost: b", "ä", "", "x".repeat(129), "x".repeat(100_000)];
  for (const nodeId of odd) await fixture.node(nodeId, { url: "http://odd:80" });
  await fixture.node("x".repeat(128), { url: "http://long:80" });
  const discovery = fixture.discovery({ heartbeatMs: 30 });
  await discovery.start();
  for (const later of ["later", "latest"]) {
    await fixture.node(later);
    await until(() => callable(discovery).includes(later));
  }
  assert.deepEqual(callable(discovery).sort(), ["later", "latest", "x".repeat(128)]);
  for (const nodeId of odd) assert.equal(discovery.candidate(nodeId, ACTION), undefined);
  assert.equal(fixture.warnings.length, odd.length);
  for (const line of fixture.warnings) assert.ok(/its node_id fits no header/.test(line) && line.length < 1_000, line);
});

test("corrupt rows are reported and hurt nobody else", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("good");
  await fixture.node("bad-services", { services: "not json" });
  await fixture.node("bad-metadata", { metadata: "[1" });
  await fixture.node("big", { services: JSON.stringify(["x".repeat(1_100_000)]) });
  await fixture.node("mixed", { services: `[null, {"name": 5}, {"name":"users","version":1,"actions":["${ACTION}"]}]` });
  const discovery = fixture.discovery();
  await discovery.start();
  assert.deepEqual(ids(discovery), ["bad-metadata", "bad-services", "big", "good", "mixed"]);
  assert.deepEqual(callable(discovery), ["good", "mixed"]);
  assert.equal(fixture.warnings.length, 4);
});

test("what the actions of a peer declare is known; what is malformed in it counts as not declared", async () => {
  await using fixture = await RegistryFixture.open();
  const declaring = (calls: unknown) => JSON.stringify([{ name: "users", version: 1, actions: [ACTION], events: [], calls }]);
  await fixture.node("a", { services: declaring({ [ACTION]: { timeoutMs: 60_000, retry: { attempts: 2 } } }) });
  const discovery = fixture.discovery();
  await discovery.start();
  assert.deepEqual(discovery.declared(ACTION), { timeoutMs: 60_000, retry: { attempts: 2 } });
  assert.equal(discovery.declared("v1.users.other"), undefined);
  assert.deepEqual(discovery.peers()[0]?.services, [{ name: "users", version: 1, actions: [ACTION], events: [] }]);
  for (const calls of ["x", [1], { [ACTION]: null }, { [ACTION]: { timeoutMs: "5", retry: { attempts: -1 } } }, { [ACTION]: { timeoutMs: 0, retry: 3 } }]) {
    await fixture.node("a", { services: declaring({ [ACTION]: { timeoutMs: 1 } }) });
    discovery.hint(hint("a"));
    await until(() => discovery.declared(ACTION)?.timeoutMs === 1);
    await fixture.node("a", { services: declaring(calls) });
    discovery.hint(hint("a"));
    await until(() => Object.keys(discovery.declared(ACTION) ?? {}).length === 0);
    assert.deepEqual(callable(discovery), ["a"]);
  }
});

test("a peer whose heartbeats stop is dropped when it is due, not at the next heartbeat", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a", { ageMs: 29_700 });
  const discovery = fixture.discovery();
  await discovery.start();
  assert.deepEqual(ids(discovery), ["a"]);
  await until(() => ids(discovery).length === 0, { timeoutMs: 2_000 });
});

test("a late heartbeat heals itself", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a", { ageMs: 31_000 });
  const discovery = fixture.discovery({ heartbeatMs: 100 });
  await discovery.start();
  assert.deepEqual(ids(discovery), []);
  await fixture.node("a");
  await until(() => ids(discovery).includes("a"));
});

test("this node's own clock does not matter", async (t) => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  await fixture.node("dead", { ageMs: 31_000 });
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() + 600_000 });
  const discovery = fixture.discovery();
  await discovery.start();
  assert.deepEqual(ids(discovery), ["a"]);
});

test("reads that fail change nothing, and the cache catches up when they work again", async () => {
  await using fixture = await RegistryFixture.open();
  const flaky = breakable(fixture.storage);
  await fixture.node("a", { ageMs: 29_700 });
  const discovery = fixture.discovery({ registry: fixture.registry(5_000, flaky.storage), heartbeatMs: 200 });
  await discovery.start();
  flaky.broken = true;
  await until(() => discovery.failing);
  await pause(400);
  assert.deepEqual(ids(discovery), ["a"], "expired by now, but nobody could tell");
  assert.equal(callable(discovery).length, 1);
  await fixture.node("b");
  flaky.broken = false;
  await until(() => ids(discovery).includes("b"));
  assert.equal(discovery.failing, false);
  assert.equal(fixture.warnings.length, 1, "an outage is reported once");
});

test("after an outage, silence counts from its end: late and swept peers have the time to write themselves again", async () => {
  await using fixture = await RegistryFixture.open();
  const flaky = breakable(fixture.storage);
  for (const nodeId of ["late", "swept", "dead"]) await fixture.node(nodeId, { ageMs: 1_000 });
  const discovery = fixture.discovery({ registry: fixture.registry(5_000, flaky.storage), heartbeatMs: 200, offlineAfterMs: 1_500 });
  await discovery.start();
  flaky.broken = true;
  await until(() => discovery.failing && discovery.peers().every(({ lastHeartbeatMs }) => Date.now() - lastHeartbeatMs > 1_500));
  await fixture.node("late", { ageMs: 60_000 });
  await fixture.node("dead", { ageMs: 60_000 });
  await fixture.remove("swept");
  flaky.broken = false;
  await until(() => !discovery.failing);
  assert.deepEqual(ids(discovery), ["dead", "late", "swept"]);
  await using _beat = fixture.beating("late", "swept");
  await until(() => !ids(discovery).includes("dead"), { timeoutMs: 3_000 });
  assert.deepEqual(ids(discovery), ["late", "swept"]);
});

test("peers that fall silent together are dropped when they are due, as long as this node reads and writes in time", async () => {
  await using fixture = await RegistryFixture.open();
  await using _beat = fixture.beating("self", "c");
  for (const nodeId of ["self", "a", "b", "c"]) await fixture.node(nodeId);
  const silentSince = performance.now();
  const discovery = fixture.discovery({ heartbeatMs: 400, offlineAfterMs: 1_200 });
  await discovery.start();
  await until(() => ids(discovery).length === 1, { timeoutMs: 3_000 });
  const silentMs = performance.now() - silentSince;
  assert.deepEqual(ids(discovery), ["c"]);
  assert.ok(silentMs > 1_150 && silentMs < 1_600, `dropped after ${silentMs} ms`);
});

test("a read that comes late, as in a frozen process, drops nobody whose row has only aged meanwhile", async () => {
  await using fixture = await RegistryFixture.open();
  const slow = stallable(fixture.storage);
  for (const nodeId of ["late", "dead"]) await fixture.node(nodeId);
  const discovery = fixture.discovery({ registry: fixture.registry(5_000, slow.storage), heartbeatMs: 200, offlineAfterMs: 600 });
  await discovery.start();
  const resume = slow.stall();
  for (const nodeId of ["late", "dead"]) await fixture.node(nodeId, { ageMs: 60_000 });
  await pause(700);
  resume();
  discovery.refresh();
  await fixture.node("new");
  await until(() => ids(discovery).includes("new"));
  assert.deepEqual(ids(discovery), ["dead", "late", "new"]);
  assert.equal(discovery.failing, false);
  await using _beat = fixture.beating("late", "new");
  await until(() => !ids(discovery).includes("dead"), { timeoutMs: 3_000 });
  assert.deepEqual(ids(discovery), ["late", "new"]);
});

test("while the database takes nobody's heartbeat, this node's own included, nobody is dropped", async () => {
  await using fixture = await RegistryFixture.open();
  for (const nodeId of ["self", "a", "b"]) await fixture.node(nodeId);
  const discovery = fixture.discovery({ heartbeatMs: 100, offlineAfterMs: 300 });
  await discovery.start();
  await pause(800);
  assert.deepEqual(ids(discovery), ["a", "b"]);
  await using _beat = fixture.beating("self", "a");
  await until(() => !ids(discovery).includes("b"), { timeoutMs: 3_000 });
  assert.deepEqual(ids(discovery), ["a"]);
});

test("a row that vanishes without a word of its node is silence; with its leave it is the end", async () => {
  await using fixture = await RegistryFixture.open();
  for (const nodeId of ["a", "b"]) await fixture.node(nodeId);
  const discovery = fixture.discovery({ heartbeatMs: 200, offlineAfterMs: 1_000 });
  await discovery.start();
  for (const nodeId of ["a", "b"]) await fixture.remove(nodeId);
  await fixture.node("c");
  await until(() => ids(discovery).includes("c"));
  assert.deepEqual(ids(discovery), ["a", "b", "c"]);
  discovery.hint(hint("b"));
  await until(() => !ids(discovery).includes("b"), { timeoutMs: 300, message: "a leave is believed at once" });
  await until(() => !ids(discovery).includes("a"), { timeoutMs: 2_000 });
});

test("a suspect is avoided until a heartbeat that is clearly younger than the suspicion", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a", { ageMs: 500 });
  await fixture.node("b", { ageMs: 500 });
  const discovery = fixture.discovery();
  await discovery.start();
  discovery.suspect("a");
  assert.deepEqual(callable(discovery), ["b"]);
  assert.equal(discovery.candidate("a", ACTION)?.nodeId, "a", "a pinned call still may try it");
  const heartbeat = () => discovery.peers().find(({ nodeId }) => nodeId === "a")?.lastHeartbeatMs;
  const before = heartbeat();
  await fixture.node("a", { ageMs: 250 });
  discovery.refresh();
  await until(() => heartbeat() !== before);
  assert.deepEqual(callable(discovery), ["b"]);
  await fixture.node("a", { ageMs: -150 });
  discovery.hint({ nodeId: "a", rev: null, heartbeat: true });
  await until(() => callable(discovery).length === 2, { timeoutMs: 700 });
});

test("a suspect is tried again after a short back-off; where all are suspect, all are tried", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  await fixture.node("b");
  const discovery = fixture.discovery();
  await discovery.start();
  discovery.suspect("a");
  assert.deepEqual(callable(discovery), ["b"]);
  discovery.suspect("b");
  assert.deepEqual(callable(discovery), ["a", "b"]);
  discovery.suspect("nobody");
  const startedAt = performance.now();
  await until(() => callable(discovery).length === 2 && performance.now() - startedAt > 1_000, { timeoutMs: 2_000 });
});

test("a suspect that would expire soon is not tried again before that, though it has written a heartbeat that was not heard of", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("dead", { ageMs: 750 });
  await fixture.node("b");
  await using _beat = fixture.beating("b", "self");
  const discovery = fixture.discovery({ heartbeatMs: 400, offlineAfterMs: 1_100 });
  await discovery.start();
  await fixture.node("dead");
  discovery.suspect("dead");
  while (ids(discovery).includes("dead")) {
    assert.deepEqual(callable(discovery), ["b"]);
    await pause(2);
  }
});

test("a local-only mesh sees peers and calls none", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  const discovery = fixture.discovery({ calls: false });
  await discovery.start();
  assert.deepEqual(ids(discovery), ["a"]);
  assert.deepEqual([callable(discovery), discovery.serves(ACTION), discovery.candidate("a", ACTION)], [[], false, undefined]);
});

test("listeners hear of changes in what can be called, and of nothing else", async () => {
  await using fixture = await RegistryFixture.open();
  await fixture.node("a");
  const discovery = fixture.discovery();
  await discovery.start();
  let changes = 0;
  const stop = discovery.onChange(() => void changes++);
  await fixture.node("a", { metadata: { zone: "x" } });
  discovery.hint(hint("a"));
  await until(() => discovery.peers()[0]?.metadata["zone"] === "x");
  assert.equal(changes, 0);
  await fixture.node("b");
  discovery.hint(hint("b"));
  await until(() => changes === 1);
  stop();
  await fixture.node("c");
  discovery.hint(hint("c"));
  await until(() => ids(discovery).length === 3);
  assert.equal(changes, 1);
});
