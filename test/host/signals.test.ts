import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { test, type TestContext } from "node:test";
import { createDatabase } from "../support/database.js";
import { makeHost } from "../support/host.js";
import { until } from "../support/wait.js";

async function startChild(t: TestContext, ...args: string[]): Promise<{ kill: (signal: NodeJS.Signals) => void; output: () => string; exited: Promise<unknown[]> }> {
  const database = await createDatabase();
  const child = spawn(process.execPath, [fileURLToPath(new URL("./signal-child.js", import.meta.url)), ...args], {
    env: { ...process.env, DATABASE_URL: database.url },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  t.after(async () => {
    child.kill("SIGKILL");
    await exited;
    await database.drop();
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  await until(() => output.includes("started"));
  return { kill: (signal) => void child.kill(signal), output: () => output, exited };
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} stops the host, and its process ends by itself`, async (t) => {
    const child = await startChild(t);
    child.kill(signal);
    assert.deepEqual(await child.exited, [0, null]);
    assert.equal(child.output(), "started\nstopping\n");
  });
}

test("a second signal ends the process at once with 128 plus its number", async (t) => {
  const child = await startChild(t, "hold");
  child.kill("SIGTERM");
  await until(() => child.output().includes("stopping"));
  child.kill("SIGINT");
  assert.deepEqual(await child.exited, [130, null]);
});

test("signal handlers are gone after stop, and after a failed start", async (t) => {
  const before = process.listenerCount("SIGTERM");
  const { host } = await makeHost(t, { server: false });
  await host.start({ signals: true });
  assert.equal(process.listenerCount("SIGTERM"), before + 1);
  await host.stop();
  assert.equal(process.listenerCount("SIGTERM"), before);
  const { host: failing } = await makeHost(t, { server: false });
  failing.register({ kind: "lifecycle", name: "bad", ready: () => { throw new Error("bad"); } });
  await assert.rejects(failing.start({ signals: true }), { message: "bad" });
  assert.equal(process.listenerCount("SIGTERM"), before);
});
