import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { test } from "node:test";
import pg from "pg";
import { action, cron, onStart, onStop, route, subscription, worker, type Context, type RouteEnv } from "@chimpbase/mesh";
import { makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

test("stop waits for requests, actions, jobs and broadcasts under way, which still have their database", async (t) => {
  const { host } = await makeHost(t);
  const { opened, open } = gate();
  const ended: string[] = [];
  let begun = 0;
  const slow = (name: string) => async (ctx: Context): Promise<void> => {
    begun++;
    await opened;
    await ctx.db.query("SELECT 1");
    ended.push(name);
  };
  let running: Promise<unknown> = Promise.resolve();
  host.register(
    route("slow", async (request, env) => {
      if (!request.url.endsWith("/slow")) return null;
      await slow("request")(env);
      return new Response("done");
    }),
    action("slow", slow("action")),
    worker("slow", slow("job")),
    subscription("slow", slow("broadcast")),
    onStart(async (ctx) => {
      running = ctx.action("slow");
      await ctx.queue.enqueue("slow", null);
      await ctx.pubsub.publish("slow", null);
    }),
    onStop(() => void ended.push("stop hook")),
  );
  await host.start();
  const url = host.url as string;
  const answer = fetch(`${url}/slow`).then((response) => response.text());
  await until(() => begun === 4);
  const stopping = host.stop();
  await until(async () => (await fetch(`${url}/readyz`)).status === 503);
  assert.deepEqual(ended, []);
  open();
  await stopping;
  await running;
  assert.equal(await answer, "done");
  assert.deepEqual(ended.slice(0, 4).sort(), ["action", "broadcast", "job", "request"]);
  assert.equal(ended[4], "stop hook");
});

test("what still runs at the drain limit is named in the log and aborted; stop hooks still have their database", async (t) => {
  const { host, lines } = await makeHost(t, { drainTimeoutMs: 100 });
  let begun = false;
  let reason: unknown;
  let rows: unknown[] = [];
  host.register(
    route("endless", async (_request, env: RouteEnv) => { begun = true; await once(env.signal, "abort"); reason = env.signal.reason; throw reason; }),
    action("stubborn", async (ctx) => { await once(ctx.signal, "abort"); await assert.rejects(ctx.db.query("SELECT 1"), { code: "CANCELLED" }); }),
    onStart((ctx) => void ctx.action("stubborn")),
    onStop(async (ctx) => { rows = await ctx.db.query("SELECT 1 AS one"); }),
  );
  await host.start();
  const answer = fetch(host.url as string).then((response) => response.status, () => "cut");
  await until(() => begun);
  await host.stop();
  assert.equal((reason as { code?: string }).code, "CANCELLED");
  assert.deepEqual(rows, [{ one: 1 }]);
  const warning = lines.find(({ msg }) => msg.includes("drain limit of 100ms"));
  const running = warning?.["running"] as string[];
  const ages = running.map((entry) => /^(?:stubborn|GET \/|endless) \((\d+) ms\)$/.exec(entry)?.[1]);
  assert.equal(ages.length, 3, running.join());
  assert.ok(ages.every((ms) => Number(ms) >= 90), running.join());
  assert.notEqual(await answer, 200);
});

test("a handler that ignores its signal does not keep stop from ending", async (t) => {
  const { host } = await makeHost(t, { server: false, drainTimeoutMs: 20 });
  const { opened, open } = gate();
  host.register(action("deaf", () => opened), onStart((ctx) => void ctx.action("deaf")));
  await host.start();
  const begun = performance.now();
  await host.stop();
  assert.ok(performance.now() - begun < 3_000);
  open();
});

test("idle keep-alive connections do not hold up stop, and steady requests do not either", async (t) => {
  const { host } = await makeHost(t);
  host.register(route("work", async () => { await new Promise((resolve) => setTimeout(resolve, 5)); return new Response("ok"); }));
  await host.start();
  const url = host.url as string;
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });
  t.after(() => agent.destroy());
  let stopped = false;
  const statuses: number[] = [];
  const client = async (): Promise<void> => {
    while (!stopped) {
      const request = httpRequest(url, { agent });
      request.end();
      try {
        const [response] = (await once(request, "response")) as [IncomingMessage];
        statuses.push(response.statusCode ?? 0);
        response.resume();
        await once(response, "end");
      } catch {
        // Refused: the server is gone.
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  };
  const clients = Array.from({ length: 4 }, client);
  await until(() => statuses.length > 20);
  const begun = performance.now();
  await host.stop();
  stopped = true;
  await Promise.all(clients);
  assert.ok(performance.now() - begun < 5_000);
  // Served, or told that the host stops, where it came after the drain: never anything else, and never cut off half-way.
  assert.equal(statuses[0], 200);
  assert.deepEqual(statuses.filter((status) => status !== 200 && status !== 503), []);
});

test("while plugins drain, a host claims no more jobs and has given back those that it had prefetched", async (t) => {
  const { host, databaseUrl } = await makeHost(t, { server: false, worker: { concurrency: 1, pollIntervalMs: 50 } });
  const claimed = async (): Promise<number> => {
    const database = new pg.Client({ connectionString: databaseUrl });
    await database.connect();
    const { rows } = await database.query<{ count: string }>("SELECT count(*) FROM _chimpbase_mesh_jobs WHERE id NOT IN (SELECT id FROM _chimpbase_mesh_ready)");
    await database.end();
    return Number(rows[0]!.count);
  };
  const plugins = gate();
  const jobs = gate();
  let begun = 0;
  let enqueue: Context["queue"]["enqueue"] | undefined;
  host.register(
    { kind: "lifecycle", name: "patient", drain: () => plugins.opened },
    worker("mixed", async (_ctx, slow: boolean) => {
      if (!slow) return;
      begun++;
      await jobs.opened;
    }, { transaction: false }),
    onStart(async (ctx) => {
      enqueue = (queue, payload) => ctx.queue.enqueue(queue, payload);
      await ctx.transaction((tx) => Promise.all(Array.from({ length: 200 }, (_, index) => tx.queue.enqueue("mixed", index >= 50))));
    }),
  );
  await host.start();
  await until(async () => begun === 1 && (await claimed()) > 1);
  const stopping = host.stop();
  await until(async () => (await claimed()) === 1);
  await enqueue!("mixed", true).catch(() => undefined);
  jobs.open();
  await until(async () => (await claimed()) === 0);
  assert.equal(begun, 1);
  plugins.open();
  await stopping;
  assert.equal(begun, 1);
});

test("once the drain has ended, livez still answers 200, raw routes are asked, and everything else is told that the host stops", async (t) => {
  const { host } = await makeHost(t);
  const statuses: Record<string, number> = {};
  const ask = async (path: string): Promise<void> => void (statuses[path] = (await fetch(`${host.url}${path}`)).status);
  host.register(
    route("guard", () => new Response("guarded", { status: 401 })),
    { kind: "raw-route", name: "raw", handler: (request, response) => request.url === "/raw" && (response.end("raw"), true) },
    onStop(() => Promise.all(["/livez", "/readyz", "/raw", "/other"].map(ask)).then(() => undefined)),
  );
  await host.start();
  await host.stop();
  assert.deepEqual(statuses, { "/livez": 200, "/readyz": 503, "/raw": 200, "/other": 503 });
});

test("where the drain limit is reached first, web routes are not joined by more requests", async (t) => {
  const { host } = await makeHost(t, { drainTimeoutMs: 50 });
  const { opened, open } = gate();
  let late = 0;
  host.register(
    route("any", () => new Response("served")),
    action("deaf", () => opened),
    onStart((ctx) => void ctx.action("deaf")),
    onStop(async () => { late = (await fetch(host.url as string)).status; }),
  );
  await host.start();
  await host.stop();
  assert.equal(late, 503);
  open();
});

test("a drain that lasts says after a second what it waits for, serves web routes meanwhile, and fires no cron", async (t) => {
  const { host, lines } = await makeHost(t);
  const { opened, open } = gate();
  let fired = 0;
  host.register(
    route("any", (request) => (request.url.endsWith("/any") ? new Response("served") : null)),
    cron("tick", "* * * * * *", () => void fired++),
    action("patient", () => opened),
    onStart((ctx) => void ctx.action("patient")),
  );
  await host.start();
  await until(() => fired > 0);
  const stopping = host.stop();
  await until(async () => (await fetch(`${host.url}/readyz`)).status === 503);
  const before = fired;
  const said = (): string[] | undefined => lines.find(({ msg }) => msg.includes("the drain waits"))?.["running"] as string[] | undefined;
  await until(said);
  assert.equal((await fetch(`${host.url}/any`)).status, 200);
  assert.match(said()!.join(), /patient \(\d+ ms\)/);
  const beganAt = performance.now();
  await until(() => performance.now() - beganAt > 1_100, { message: "a second has passed" });
  assert.equal(fired, before);
  open();
  await stopping;
});
