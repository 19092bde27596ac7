import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { service } from "@chimpbase/mesh";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { until } from "../support/wait.js";

/** True for an answer, false for a connection that was refused or cut. */
async function get(url: string, agent: Agent | false): Promise<boolean> {
  try {
    const request = httpRequest(url, { agent });
    request.end();
    const [response] = (await once(request, "response")) as [IncomingMessage];
    let text = "";
    for await (const chunk of response) text += String(chunk);
    return response.statusCode === 200 && text === "done";
  } catch {
    return false;
  }
}

test("SIGTERM under load: no call fails, every request that was begun is answered, and the process ends", { timeout: 30_000 }, async (t) => {
  await using mesh = await MeshFixture.open();
  const other = service({ name: "work", version: 1, actions: { do: async () => { await sleep(15); return process.pid; } } });
  const caller = await mesh.started([service({ name: "caller", version: 1, actions: {} })]);
  await mesh.started([other]);

  const child = spawn(process.execPath, [fileURLToPath(new URL("./load-child.js", import.meta.url))], { env: { ...process.env, DATABASE_URL: mesh.url }, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => void child.kill("SIGKILL"));
  const exited = once(child, "exit");
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  await until(() => output.includes("\n"));
  const { url } = JSON.parse(output) as { url: string };
  await until(() => caller.mesh.peers().length === 2);

  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  t.after(() => agent.destroy());
  let running = true;
  const failures: unknown[] = [];
  const servedBy = new Map<unknown, number>();
  let answered = 0;
  const call = async (): Promise<void> => {
    await caller.mesh.call("v1.work.do").then((pid) => servedBy.set(pid, (servedBy.get(pid) ?? 0) + 1), (error: unknown) => failures.push(error));
  };
  const request = async (via: Agent | false): Promise<void> => {
    if (await get(`${url}/work`, via)) answered++;
    else await sleep(2);
  };
  const loops = [...Array.from({ length: 12 }, () => call), ...Array.from({ length: 4 }, () => () => request(false)), ...Array.from({ length: 8 }, () => () => request(agent))];
  const load = loops.map(async (step) => {
    while (running) await step();
  });

  await until(() => answered > 50 && (servedBy.get(child.pid) ?? 0) > 50);
  child.kill("SIGTERM");
  assert.deepEqual(await exited, [0, null]);
  const after = servedBy.get(process.pid) ?? 0;
  await until(() => (servedBy.get(process.pid) ?? 0) > after + 20);
  running = false;
  await Promise.all(load);
  assert.deepEqual(failures, []);
  const { begun } = JSON.parse(output.split("\n")[1] as string) as { begun: number };
  assert.equal(answered, begun);
});
