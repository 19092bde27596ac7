import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { MeshActionNotFoundError, MeshCallError, MeshTimeoutError, service, type Context } from "@chimpbase/mesh";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { post } from "../mesh/rpc-fixture.js";
import { until } from "../support/wait.js";

interface Seen {
  readonly url: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  readonly connection: number;
}

interface Foreign {
  readonly port: number;
  readonly actions: readonly string[];
  seen(): Promise<Seen[]>;
  ask(url: string, token: string, body: object): Promise<{ status: number; text: string }>;
}

async function startForeign(t: TestContext): Promise<Foreign> {
  const child = fork(fileURLToPath(new URL("./foreign-node.js", import.meta.url)), { stdio: ["ignore", "pipe", "inherit", "ipc"] });
  t.after(() => void child.kill());
  const [line] = (await once(child.stdout!, "data")) as [Buffer];
  const { port, actions } = JSON.parse(line.toString()) as { port: number; actions: string[] };
  const control = async (path: string, body: unknown): Promise<unknown> => JSON.parse((await post({ port }, body, { path, token: null })).text);
  return {
    port, actions,
    seen: () => control("/seen", "") as Promise<Seen[]>,
    ask: (url, token, body) => control("/ask", { url, token, body }) as Promise<{ status: number; text: string }>,
  };
}

/** A row with the documented columns, and of the service only what the contract asks for. */
async function addRow(mesh: MeshFixture, { port, actions }: Foreign): Promise<void> {
  await mesh.query(
    `INSERT INTO _chimpbase_mesh_nodes (node_id, advertised_url, services_json, started_at_ms, last_heartbeat_ms)
     SELECT 'old-node', $1, $2, now_ms, now_ms FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms) AS t`,
    [`http://127.0.0.1:${port}`, JSON.stringify([{ name: "old", version: 1, actions, events: [] }])],
  );
}

const seenBy: { callers: unknown[]; deadline: number | null } = { callers: [], deadline: null };
const fresh = service({
  name: "fresh", version: 1,
  actions: {
    add: async (ctx: Context, { a, b }: { a: number; b: number }) => { seenBy.callers.push(ctx.caller); seenBy.deadline = ctx.deadline; return a + b; },
    echo: async (_ctx: Context, args: unknown) => args,
    fail: async () => { throw new RangeError("out of range"); },
  },
});

test("a node that knows only the basic form of request, as callee", async (t) => {
  await using mesh = await MeshFixture.open();
  const foreign = await startForeign(t);
  const host = await mesh.started([fresh], { heartbeatMs: 500, offlineAfterMs: 60_000 });
  await addRow(mesh, foreign);
  await host.mesh.waitFor("v1.old", { timeoutMs: 15_000 });
  const call = (action: string, args?: unknown, timeoutMs = 5_000): Promise<unknown> => host.mesh.call(`v1.old.${action}`, args, { timeoutMs });

  await t.test("is sent what the contract says", async () => {
    assert.deepEqual(await call("echo", { q: [1, null] }), { q: [1, null] });
    const [{ url, method, headers, text }] = (await foreign.seen()) as [Seen];
    assert.deepEqual([url, method], ["/__chimpbase/mesh/rpc", "POST"]);
    assert.deepEqual([headers["content-type"], headers["x-chimpbase-mesh-token"], headers["x-chimpbase-mesh-caller"]], ["application/json", "t0ken", host.nodeId]);
    const timeout = Number(headers["x-chimpbase-mesh-timeout"]);
    assert.ok(timeout > 0 && timeout <= 5_000);
    const body = JSON.parse(text) as Record<string, unknown>;
    assert.deepEqual([body["actionName"], body["args"], body["callerNodeId"]], ["v1.old.echo", { q: [1, null] }, host.nodeId]);
    assert.ok((body["deadlineMs"] as number) > 0 && (body["deadlineMs"] as number) <= 5_000);
  });

  await t.test("answers in one piece, in many, and slowly; connections are used again", async () => {
    for (const action of ["echo", "chunks", "slow", "echo", "chunks", "echo"]) assert.deepEqual(await call(action, { text: "grüße" }), { text: "grüße" });
    // A connection rests for a turn of the event loop after each answer, in which another one may be opened.
    assert.ok(new Set((await foreign.seen()).map(({ connection }) => connection)).size <= 2);
  });

  await t.test("answers with errors that say status and message only", async () => {
    await assert.rejects(call("broken"), (error) => error instanceof MeshCallError && error.message === "old and broken" && error.code === "CALL_FAILED" && error.retryable);
    await assert.rejects(call("missing"), MeshActionNotFoundError);
  });

  await t.test("answers junk", async () => {
    for (const action of ["html", "half", "silent"]) {
      await assert.rejects(call(action), (error) => error instanceof MeshCallError && /no mesh answer/.test(error.message) && error.nodeId === "old-node", action);
    }
  });

  await t.test("points elsewhere: nobody follows, and the token goes nowhere", async () => {
    await assert.rejects(call("moved"), (error) => error instanceof MeshCallError && /answered 307/.test(error.message));
    assert.deepEqual((await foreign.seen()).filter(({ url }) => url === "/elsewhere"), []);
  });

  await t.test("never answers: the deadline holds, and others are served meanwhile", async () => {
    const hanging = call("hang", undefined, 300);
    assert.equal(await call("echo", 1), 1);
    await assert.rejects(hanging, MeshTimeoutError);
    assert.equal(await call("echo", 2), 2);
  });

  await t.test("resets the connection within its answer: the call fails at once, and the next one works", async () => {
    const before = performance.now();
    await assert.rejects(call("reset"), (error) => error instanceof MeshCallError && /dropped the connection/.test(error.message) && error.retryable);
    assert.ok(performance.now() - before < 2_000);
    // The only node that serves the action is asked, suspect or not.
    assert.equal(await call("echo", 3), 3);
  });
});

test("a node that knows only the basic form of request, as caller", async (t) => {
  await using mesh = await MeshFixture.open();
  const foreign = await startForeign(t);
  const host = await mesh.started([fresh]);
  // It finds its peer where the contract says: in the table.
  const [row] = await mesh.query<{ advertised_url: string; metadata_json: string; services_json: string }>("SELECT * FROM _chimpbase_mesh_nodes WHERE node_id = $1", [host.nodeId]);
  const [{ actions }] = JSON.parse(row!.services_json) as [{ actions: string[] }];
  assert.ok(actions.includes("v1.fresh.add"));
  const url = `${row!.advertised_url}/__chimpbase/mesh/rpc`;
  const body = (actionName: string, args?: unknown): object => ({ actionName, args, callerNodeId: "old-node", deadlineMs: 2_000 });

  await t.test("gets results, and is known to the handler", async () => {
    assert.deepEqual(await foreign.ask(url, "t0ken", body("v1.fresh.add", { a: 1, b: 2 })), { status: 200, text: '{"ok":true,"result":3}' });
    assert.deepEqual(seenBy.callers, [{ nodeId: "old-node", action: null }]);
    assert.ok(seenBy.deadline !== null && seenBy.deadline <= 2_000);
    assert.equal((await foreign.ask(url, "t0ken", body("v1.fresh.echo", [null]))).text, '{"ok":true,"result":[null]}');
    assert.equal((await foreign.ask(url, "t0ken", body("v1.fresh.echo"))).text, '{"ok":true,"result":null}');
  });

  await t.test("gets errors with status and message", async () => {
    const answers = [
      [await foreign.ask(url, "t0ken", body("v1.fresh.fail")), 500, "out of range"],
      [await foreign.ask(url, "t0ken", body("v1.fresh.none")), 404, "mesh action not found: v1.fresh.none"],
      [await foreign.ask(url, "wrong", body("v1.fresh.add")), 401, "unauthorized mesh rpc"],
      [await foreign.ask(url, "t0ken", {}), 400, "invalid json body"],
    ] as const;
    for (const [{ status, text }, expected, message] of answers) {
      const { ok, error } = JSON.parse(text) as { ok: boolean; error: string };
      assert.deepEqual([status, ok, error], [expected, false, message]);
    }
  });

  await t.test("whose row is malformed harms nobody", async () => {
    await addRow(mesh, foreign);
    await mesh.query("UPDATE _chimpbase_mesh_nodes SET services_json = '{', metadata_json = 'null' WHERE node_id = 'old-node'");
    await mesh.query("SELECT pg_notify('nobody', '')");
    const other = await mesh.started([service({ name: "other", version: 1, actions: { x: async () => 1 } })]);
    await until(() => host.mesh.peers().some(({ nodeId }) => nodeId === other.nodeId));
    assert.equal(await host.mesh.call("v1.other.x"), 1);
  });
});
