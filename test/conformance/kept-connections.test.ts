import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { test } from "node:test";
import { chimpbaseMesh, onStop, route, service } from "@chimpbase/mesh";
import { makeHost } from "../support/host.js";

const TOKEN = "a-token-of-the-test";

interface Answer {
  readonly status: number | undefined;
  readonly body: { readonly ok: boolean; readonly undelivered?: boolean };
}

async function post(url: string, agent: Agent, path = "/__chimpbase/mesh/rpc"): Promise<Answer> {
  const outgoing = request(url + path, {
    method: "POST",
    agent,
    headers: { "content-type": "application/json", "x-chimpbase-mesh-token": TOKEN },
  });
  outgoing.end(JSON.stringify({ actionName: "v1.echo.say", args: "hi", callerNodeId: "test", deadlineMs: 1_000 }));
  const [response] = await once(outgoing, "response");
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, body: JSON.parse(text) as Answer["body"] };
}

test("a request on a kept connection of a node that stops is told so, and never cut off", async (t) => {
  const { host } = await makeHost(t, { secrets: { values: { MESH_TOKEN: TOKEN } } });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  let stopping!: () => void;
  const stopHook = new Promise<void>((resolve) => (stopping = resolve));
  host.register(
    chimpbaseMesh({ services: [service({ name: "echo", actions: { say: (_ctx, word: string) => word } })], meshToken: "MESH_TOKEN" }),
    onStop(() => stopping()),
  );
  await host.start();
  const { url } = host;
  assert.equal((await post(url!, agent)).status, 200);
  const socket = Object.values(agent.freeSockets).flat()[0];
  assert.ok(socket, "the connection is kept");

  const stopped = host.stop();
  await stopHook;
  const late = await post(url!, agent);
  assert.equal(late.status, 503);
  assert.equal(late.body.undelivered, true);
  await stopped;
});

test("a web route takes no request after the drain, also on a kept connection", async (t) => {
  const { host } = await makeHost(t);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  let served = 0;
  host.register(
    route("count", () => Response.json({ ok: true, served: ++served })),
    onStop(async () => {
      assert.equal((await post(url!, agent, "/count")).status, 503);
    }),
  );
  await host.start();
  const { url } = host;
  assert.equal((await post(url!, agent, "/count")).status, 200);
  await host.stop();
  assert.equal(served, 1);
});
