import assert from "node:assert/strict";
import { test } from "node:test";
import { Presence } from "#mesh/mesh/presence.js";
import type { PresenceOptions } from "#mesh/mesh/presence.js";
import type { Outbox, OutgoingEvent } from "#mesh/contract/messaging.js";
import { until } from "../support/wait.js";
import { breakable, RegistryFixture } from "./registry-fixture.js";

interface Row { advertised_url: string | null; metadata_json: string; services_json: string; started_at_ms: string; last_heartbeat_ms: string }

/** An outbox that notes what is sent, and whether the node's row was there at that time. */
class Told implements Outbox {
  readonly events: { name: string; payload: unknown; row: boolean }[] = [];
  constructor(readonly fixture: RegistryFixture) {}
  async emit(event: OutgoingEvent): Promise<number> {
    const row = (await read(this.fixture)) !== undefined;
    this.events.push({ name: event.name.split(".").at(-1)!, payload: event.payload, row });
    return 0;
  }
  enqueue(): Promise<string> {
    throw new Error("no job");
  }
}

async function read(fixture: RegistryFixture): Promise<Row | undefined> {
  const [row] = await fixture.storage.query<Row>("SELECT * FROM _chimpbase_mesh_nodes WHERE node_id = 'self'");
  return row;
}

function presence(fixture: RegistryFixture, options: Partial<PresenceOptions> = {}): { presence: Presence; told: Told } {
  const told = new Told(fixture);
  return {
    told,
    presence: new Presence({
      rpcAuth: "token",
      registry: fixture.registry(), outbox: told, nodeId: "self", heartbeatMs: 10_000, transport: "http", rpcPath: "/rpc",
      meta: { zone: "eu" }, services: () => [], log: fixture.log, ...options,
    }),
  };
}

test("a node writes its row first, then announces itself; it leaves in the same order", async () => {
  await using fixture = await RegistryFixture.open();
  const services = [{ name: "users", version: 1, actions: ["v1.users.create"], events: ["user.deleted"] }];
  const { presence: node, told } = presence(fixture, { services: () => services });
  await node.start("http://self:1");
  const row = await read(fixture);
  assert.equal(row?.advertised_url, "http://self:1");
  assert.deepEqual(JSON.parse(row.services_json), services);
  const { cpuLoad, ...metadata } = JSON.parse(row.metadata_json) as Record<string, unknown>;
  assert.deepEqual(metadata, { zone: "eu", $mesh: { protocol: 1, rev: 1, transport: "http", rpcPath: "/rpc", draining: false, wire: 1 } });
  assert.ok(typeof cpuLoad === "number" && cpuLoad >= 0 && cpuLoad <= 1);
  await node.drain();
  assert.equal(JSON.parse((await read(fixture))!.metadata_json).$mesh.draining, true);
  await node.leave();
  assert.equal(await read(fixture), undefined);
  assert.deepEqual(told.events, [
    { name: "announce", payload: { nodeId: "self", rev: 1 }, row: true },
    { name: "announce", payload: { nodeId: "self", rev: 2 }, row: true },
    { name: "leave", payload: { nodeId: "self", rev: 2 }, row: false },
  ]);
});

test("a swept row is written again at the next heartbeat, and announced", async () => {
  await using fixture = await RegistryFixture.open();
  const { presence: node, told } = presence(fixture, { heartbeatMs: 50 });
  await node.start("http://self:1");
  const first = await read(fixture);
  await until(async () => (await read(fixture))?.last_heartbeat_ms !== first?.last_heartbeat_ms);
  await fixture.remove("self");
  await until(() => told.events.filter(({ name }) => name === "announce").length === 2);
  const again = await read(fixture);
  assert.equal(again?.started_at_ms, first?.started_at_ms);
  await node.leave();
});

test("a heartbeat under way does not bring back the row of a node that leaves", async () => {
  await using fixture = await RegistryFixture.open();
  for (let i = 0; i < 20; i++) {
    const { presence: node } = presence(fixture, { heartbeatMs: 1 });
    await node.start("http://self:1");
    await new Promise((resolve) => setTimeout(resolve, i % 5));
    await node.leave();
    assert.equal(await read(fixture), undefined);
  }
});

test("heartbeats that fail are reported once, tried again soon, and heal", async () => {
  await using fixture = await RegistryFixture.open();
  const flaky = breakable(fixture.storage);
  const { presence: node } = presence(fixture, { heartbeatMs: 50, registry: fixture.registry(5_000, flaky.storage) });
  await node.start("http://self:1");
  flaky.broken = true;
  await until(() => node.failing);
  await fixture.remove("self");
  await new Promise((resolve) => setTimeout(resolve, 200));
  flaky.broken = false;
  await until(async () => !node.failing && (await read(fixture)) !== undefined);
  assert.equal(fixture.warnings.length, 1);
  await node.leave();
});

test("an event that cannot be sent does not stop the heartbeat", async () => {
  await using fixture = await RegistryFixture.open();
  const outbox = { emit: () => new Promise<number>(() => undefined), enqueue: () => Promise.reject(new Error("no job")) };
  let sent = 0;
  const hanging = { ...outbox, emit: () => (sent++ === 0 ? Promise.reject(new Error("down")) : outbox.emit()) };
  const { presence: node } = presence(fixture, { heartbeatMs: 20, outbox: hanging });
  await node.start("http://self:1");
  const first = (await read(fixture))!.last_heartbeat_ms;
  await until(async () => Number((await read(fixture))!.last_heartbeat_ms) > Number(first) + 100);
  for (let i = 0; i < 3; i++) node.tell([]);
  assert.equal(sent, 2, "one announcement, and one digest that hangs");
  await node.leave();
  assert.equal(await read(fixture), undefined);
});

test("meta may be a function, read at each heartbeat; what it cannot tell leaves the last value", async () => {
  await using fixture = await RegistryFixture.open();
  const values: unknown[] = [{ n: 1, cpuLoad: 0.25 }, "no object", { $mesh: 1 }];
  const meta = () => {
    if (values.length === 0) throw new Error("broken");
    return values.shift() as Record<string, unknown>;
  };
  const { presence: node } = presence(fixture, { heartbeatMs: 20, meta });
  await node.start("http://self:1");
  await until(() => fixture.warnings.length >= 3);
  const { n, cpuLoad } = JSON.parse((await read(fixture))!.metadata_json) as Record<string, unknown>;
  assert.deepEqual([n, cpuLoad, node.cpuLoad], [1, 0.25, 0.25]);
  await node.leave();
});
