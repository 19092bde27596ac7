import assert from "node:assert/strict";
import { test } from "node:test";
import { service } from "@chimpbase/mesh";
import type { Context, Host } from "@chimpbase/mesh";
import { until } from "../support/wait.js";
import { MeshFixture } from "./mesh-fixture.js";

const codeOf = (call: Promise<unknown>): Promise<unknown> => call.then(() => null, (error: { readonly code: string }) => error.code);
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
  // The watcher's handler may hear of the row before its cache has read it; until then the draining node itself refuses.
  await until(async () => (await codeOf(watcher.mesh.call("v1.slow.wait"))) !== "OVERLOADED");
  await assert.rejects(watcher.mesh.call("v1.slow.wait"), { code: "NO_AVAILABLE_NODE" });
  release!();
  assert.equal(await call, "done");
  await stopped;
  await until(() => seen.at(-1) === "leave no row");
});
