import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/wait.js";
import { RegistryFixture } from "./registry-fixture.js";

const row = (nodeId: string, startedAtMs: number | null = null) => ({
  nodeId, advertisedUrl: "http://a:1", metadataJson: "{}", servicesJson: "[]", startedAtMs,
});

test("a heartbeat writes a swept row again, whole and with its first start", async () => {
  await using fixture = await RegistryFixture.open();
  const registry = fixture.registry();
  const first = await registry.write(row("a"));
  assert.equal(first.inserted, true);
  const second = await registry.write(row("a", first.startedAtMs));
  assert.deepEqual(second, { startedAtMs: first.startedAtMs, inserted: false });
  await fixture.remove("a");
  const third = await registry.write(row("a", first.startedAtMs));
  assert.deepEqual(third, { startedAtMs: first.startedAtMs, inserted: true });
});

test("all times are the database's clock", async (t) => {
  await using fixture = await RegistryFixture.open();
  t.mock.timers.enable({ apis: ["Date"], now: 1_000 });
  const registry = fixture.registry();
  const { startedAtMs } = await registry.write(row("a"));
  const read = await registry.readLive(60_000);
  assert.ok(startedAtMs > 1_600_000_000_000);
  assert.ok(read.nowMs - startedAtMs < 5_000);
  assert.deepEqual(read.rows.map(({ nodeId }) => nodeId), ["a"]);
});

test("an empty registry still tells the time", async () => {
  await using fixture = await RegistryFixture.open();
  const read = await fixture.registry().readLive(60_000);
  assert.deepEqual(read.rows, []);
  assert.ok(read.nowMs > 1_600_000_000_000);
});

test("services are read with the hash that tells them apart", async () => {
  await using fixture = await RegistryFixture.open();
  const registry = fixture.registry();
  await fixture.node("a", { services: '[{"name":"x"}]' });
  const read = await registry.readNodes(["a"]);
  const services = await registry.readServices(["a"]);
  assert.deepEqual(services.get("a"), { hash: read.rows[0]?.servicesHash, json: '[{"name":"x"}]' });
});

test("oversized columns are not transferred", async () => {
  await using fixture = await RegistryFixture.open();
  const registry = fixture.registry();
  await fixture.node("a", { metadata: JSON.stringify("m".repeat(70_000)), services: JSON.stringify("s".repeat(1_100_000)) });
  const read = await registry.readNodes(["a"]);
  assert.deepEqual([read.rows[0]?.metadataJson, read.rows[0]?.servicesHash], [null, null]);
  assert.equal((await registry.readServices(["a"])).size, 0);
});

test("the sweep deletes old rows only", async () => {
  await using fixture = await RegistryFixture.open();
  const registry = fixture.registry();
  await fixture.node("old", { ageMs: 700_000 });
  await fixture.node("late", { ageMs: 60_000 });
  assert.equal(await registry.sweep(600_000), 1);
  assert.deepEqual((await registry.readLive(1e9)).rows.map(({ nodeId }) => nodeId), ["late"]);
});

test("a statement that hangs is given up in time", async () => {
  await using fixture = await RegistryFixture.open();
  const hanging = new Proxy(fixture.storage, {
    get: (target, key) => (key === "query" ? () => new Promise(() => undefined) : Reflect.get(target, key, target).bind(target)),
  });
  await assert.rejects(fixture.registry(30, hanging).readLive(1_000), { code: "TIMEOUT" });
});

test("in a full pool a heartbeat keeps its place in the queue", async () => {
  await using fixture = await RegistryFixture.open();
  const release: (() => void)[] = [];
  const busy = Array.from({ length: 10 }, () => fixture.storage.transaction(() => new Promise<void>((resolve) => release.push(resolve))));
  await until(() => fixture.storage.stats().total === 10 && release.length === 10);
  const heartbeat = fixture.registry().write(row("a"));
  await until(() => fixture.storage.stats().waiting === 1);
  for (const end of release) end();
  assert.equal((await heartbeat).inserted, true);
  await Promise.all(busy);
});
