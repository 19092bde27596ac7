import assert from "node:assert/strict";
import { test } from "node:test";
import { service } from "@chimpbase/mesh";
import type { Context } from "@chimpbase/mesh";
import { createLogger } from "#mesh/logger.js";
import { createOutbox } from "#mesh/runtime/outbox.js";
import { encodeWake, WAKE_CHANNEL } from "#mesh/runtime/wake.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";

const hello = service({ name: "hello", version: 1, actions: { who: async (ctx: Context) => ctx.mesh.nodeId() } });
const NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const SERVICES = JSON.stringify([{ name: "hello", version: 1, actions: ["v1.hello.who"], events: [] }]);

test("the registry table has exactly the columns of the contract", async () => {
  await using mesh = await MeshFixture.open();
  const columns = await mesh.query<Record<string, unknown>>(
    `SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns
     WHERE table_name = '_chimpbase_mesh_nodes' ORDER BY ordinal_position`,
  );
  assert.deepEqual(columns.map((column) => Object.values(column)), [
    ["node_id", "text", "NO", null],
    ["advertised_url", "text", "YES", null],
    ["metadata_json", "text", "NO", "'{}'::text"],
    ["services_json", "text", "NO", "'[]'::text"],
    ["started_at_ms", "bigint", "NO", null],
    ["last_heartbeat_ms", "bigint", "NO", null],
  ]);
  const [key] = await mesh.query<{ definition: string }>("SELECT pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = '_chimpbase_mesh_nodes'::regclass AND contype = 'p'");
  assert.equal(key?.definition, "PRIMARY KEY (node_id)");
});

test("rows that are corrupt, or lead nowhere, fail no call that another node can serve", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([service({ name: "caller", version: 1 })], { heartbeatMs: 100, offlineAfterMs: 60_000 });
  const peer = await mesh.started([hello]);
  const write = (nodeId: string, url: string | null, metadata: string, services: string) =>
    mesh.query(`INSERT INTO _chimpbase_mesh_nodes VALUES ($1, $2, $3, $4, ${NOW}, ${NOW})`, [nodeId, url, metadata, services]);
  await write("refuses", "http://127.0.0.1:1", "{}", SERVICES);
  await write("unknown-host", "http://no-such-host.invalid:80", "{}", SERVICES);
  await write("ftp", "ftp://127.0.0.1", "{}", SERVICES);
  await write("other-path", peer.url, '{"$mesh":{"rpcPath":"/elsewhere"}}', "[]");
  await write("no-json", peer.url, "{", "[");
  await write("wrong-json", peer.url, '"a"', '{"a":1}');
  await until(() => host.mesh.peers().length === 7);
  for (let i = 0; i < 8; i++) assert.equal(await host.mesh.call("v1.hello.who", {}, { strategy: "round-robin" }), peer.nodeId);
});

test("forged events and notifications neither add a node nor take one away", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([service({ name: "caller", version: 1 })]);
  const peer = await mesh.started([hello]);
  await host.mesh.waitFor("v1.hello.who");
  const log = createLogger({ level: "silent" });
  const storage = await openPostgres({ url: mesh.url, log });
  const forger = createOutbox({ storage, nodeId: peer.nodeId, log });
  const forge = (event: string, payload: unknown) => forger.emit({ name: `__chimpbase.mesh.info.${event}`, payload, requestId: "x", meta: {} }, "broadcast");
  for (const payload of [{ nodeId: "ghost", rev: 9 }, { nodeId: peer.nodeId, rev: 9 }, { nodeId: host.nodeId }, { nodeId: 5 }, null, "x"]) {
    for (const event of ["announce", "heartbeat", "leave", "resync"]) await forge(event, payload);
  }
  const wakes = encodeWake({ nodeId: peer.nodeId, events: "any", lanes: ["q:none"], delayed: [] });
  for (const text of ["", "x", "{}", '{"nodeId":"ghost","events":"any","lanes":5,"delayed":[]}', ...wakes]) await storage.query("SELECT pg_notify($1, $2)", [storage.channel(WAKE_CHANNEL), text]);
  await forger.close();
  await storage.close();
  // What came before this has been dealt with when this has been.
  const late = await mesh.started([service({ name: "late", version: 1 })]);
  await until(() => host.mesh.peers().length > 1);
  assert.deepEqual(host.mesh.peers().map(({ nodeId }) => nodeId).sort(), [peer.nodeId, late.nodeId].sort());
  assert.equal(await host.mesh.call("v1.hello.who"), peer.nodeId);
});
