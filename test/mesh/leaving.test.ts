import assert from "node:assert/strict";
import { test } from "node:test";
import { service } from "@chimpbase/mesh";
import type { Context, Host } from "@chimpbase/mesh";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";
import { PATH, RawConnection } from "./rpc-fixture.js";

const hello = service({ name: "hello", version: 1, actions: { who: async (ctx: Context) => ctx.mesh.nodeId() } });
const token = "t0ken";
const body = JSON.stringify({ actionName: "v1.hello.who" });
const REQUEST = `POST ${PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nx-chimpbase-mesh-token: ${token}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;

const connectTo = (host: Host) => RawConnection.to({ port: Number(new URL(host.url!).port) });
const rows = (mesh: MeshFixture) => mesh.query<{ node_id: string; metadata_json: string }>("SELECT node_id, metadata_json FROM _chimpbase_mesh_nodes");

test("a node that stops marks itself draining, then deletes its row, then says that it leaves", async () => {
  await using mesh = await MeshFixture.open();
  const seen: string[] = [];
  const watcher = await mesh.started([service({ name: "watcher", version: 1, events: {
    "__chimpbase.mesh.info.*": async (ctx: Context, { nodeId }: { nodeId: string }) => {
      const row = (await rows(mesh)).find(({ node_id }) => node_id === nodeId);
      if (nodeId === leaving?.nodeId) seen.push(`${ctx.event!.name.split(".").at(-1)} ${row === undefined ? "no row" : (JSON.parse(row.metadata_json) as { $mesh: { draining: boolean } }).$mesh.draining}`);
    },
  } })]);
  let release: (() => void) | undefined;
  const slow = service({ name: "slow", version: 1, actions: { wait: () => new Promise<string>((resolve) => (release = () => resolve("done"))) } });
  const leaving: Host = await mesh.started([slow]);
  await watcher.mesh.waitFor("v1.slow.wait");
  const call = watcher.mesh.call("v1.slow.wait");
  await until(() => release !== undefined);
  const stopped = leaving.stop();
  await until(() => seen.includes("announce true"));
  assert.equal(watcher.mesh.peers()[0]?.nodeId, leaving.nodeId, "a draining node is still a peer");
  await assert.rejects(watcher.mesh.call("v1.slow.wait"), { code: "NO_AVAILABLE_NODE" });
  release!();
  assert.equal(await call, "done");
  await stopped;
  await until(() => seen.at(-1) === "leave no row");
});

test("a request that arrives over an open connection while the node leaves is answered, not cut", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([hello]);
  const connection = await connectTo(host);
  connection.send(REQUEST);
  await until(() => connection.received.includes('"ok":true'));
  const stopped = host.stop();
  await until(async () => (await rows(mesh)).length === 0);
  assert.equal(connection.closed, false, "idle, and left to the caller");
  connection.send(REQUEST);
  await until(() => connection.closed);
  assert.match(connection.received, /503[\s\S]*connection: close[\s\S]*"error":"this mesh node is draining"[\s\S]*"undelivered":true/i);
  await stopped;
});

test("connections that callers keep open hold up the end of a node for two seconds at most, others not at all", async () => {
  await using mesh = await MeshFixture.open();
  const [held, free] = await Promise.all([mesh.started([hello]), mesh.started([service({ name: "free", version: 1 })])]);
  const idle = await connectTo(free);
  const kept = await connectTo(held);
  kept.send(REQUEST);
  await until(() => kept.received.includes('"ok":true'));
  const timeOf = async (host: Host): Promise<number> => {
    const startedAt = performance.now();
    await host.stop();
    return performance.now() - startedAt;
  };
  const [heldMs, freeMs] = await Promise.all([timeOf(held), timeOf(free)]);
  assert.ok(freeMs < 1_500 && heldMs > 1_900 && heldMs < 4_000, `held for ${heldMs} ms, free for ${freeMs} ms`);
  await until(() => kept.closed && idle.closed);
});
