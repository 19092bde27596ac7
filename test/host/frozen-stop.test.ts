import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { chimpbaseMesh, cron, onStart, service, worker } from "@chimpbase/mesh";
import { createDatabase } from "../support/database.js";
import { hostOn } from "../support/host.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

const DRAIN_MS = 500;
/** What docs/guides/deployment.md allows for all that is around the drain. */
const AROUND_MS = 15_000;

test("a stop while Postgres does not answer, with a job and a cron under way, takes its drain limit and 15 s at most", async (t) => {
  const database = await createDatabase();
  const relay = await relayTo(database.url);
  const { host, lines } = hostOn(relay.url, { drainTimeoutMs: DRAIN_MS, secrets: { values: { MESH_TOKEN: "t0ken" } } });
  t.after(async () => {
    await host.stop().catch(() => undefined);
    await relay.close();
    await database.drop();
  });
  let [working, ticks] = [false, 0];
  host.register(
    chimpbaseMesh({ services: [service({ name: "a", version: 1 })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }),
    worker("slow", async (ctx) => {
      working = true;
      await once(ctx.signal, "abort");
      await ctx.db.query("SELECT 1");
    }),
    cron("ticks", "* * * * * *", () => void ticks++),
    onStart((ctx) => ctx.queue.enqueue("slow", null)),
  );
  await host.start();
  await until(() => working && ticks > 0);
  relay.freeze();
  // A tick falls due, and its node asks for it.
  const frozenAt = performance.now();
  await until(() => performance.now() - frozenAt > 1_100);
  const begun = performance.now();
  await host.stop();
  const tookMs = performance.now() - begun;
  assert.ok(tookMs < DRAIN_MS + AROUND_MS, `${tookMs} ms`);
  assert.ok(lines.some(({ msg }) => msg === "host stopped"));
});
