import assert from "node:assert/strict";
import { test } from "node:test";
import { chimpbaseMesh, service, worker } from "@chimpbase/mesh";
import { createDatabase } from "../support/database.js";
import { hostOn } from "../support/host.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

const POOL = 2;
const ROUNDS = 30;
const FUNCTIONS = ["write", "claim", "complete", "begin_job", "read_events"];
const CALLS = ["pg_notify($1, payload)", ...FUNCTIONS.map((name) => `_chimpbase_mesh_${name}"(`)];

test("what runs for each event and job is parsed twice for each connection, and no more", async (t) => {
  const database = await createDatabase();
  const relay = await relayTo(database.url);
  let words = "";
  relay.rewrite = (sent) => ((words += sent.toString("latin1")), sent);
  const { host } = hostOn(relay.url, { server: false, database: { poolSize: POOL, listenUrl: database.url } });
  t.after(async () => {
    await host.stop();
    await relay.close();
    await database.drop();
  });
  const ran = { balanced: 0, broadcast: 0, job: 0 };
  const orders = service({
    name: "orders",
    version: 1,
    events: {
      "order.paid": {
        balanced: true,
        handler: async (ctx) => {
          await ctx.db.query("SELECT ?1::int", [1]);
          await ctx.queue.enqueue("mails", {});
          ran.balanced++;
        },
      },
      "order.seen": () => void ran.broadcast++,
    },
  });
  host.register(chimpbaseMesh({ transport: "local-only", services: [orders] }), worker("mails", () => void ran.job++));
  await host.start();
  for (let round = 1; round <= ROUNDS; round++) {
    await host.mesh.emit("order.paid", { round }, { balanced: true });
    await host.mesh.emit("order.seen", { round }, { balanced: false });
    await until(() => Math.min(ran.balanced, ran.broadcast, ran.job) === round);
  }
  // The first time is before a connection knows whether it can keep it. One more than the pool's size is there for what is reserved.
  for (const call of CALLS) {
    const parsed = words.split(call).length - 1;
    assert.ok(parsed >= 1 && parsed <= 2 * (POOL + 1), `${call}: ${parsed} times`);
  }
});
