import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { until } from "../support/wait.js";

interface Report {
  readonly directory: string;
  readonly handled?: unknown;
  readonly error?: string;
}

/** Rejects where the process does not end by itself, or not with code 0. */
async function runChild(...args: string[]): Promise<Report> {
  const script = fileURLToPath(new URL("./embedded-child.js", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, ...args], { timeout: 40_000, killSignal: "SIGKILL" });
  const report = JSON.parse(stdout) as Report;
  assert.notEqual(report.directory, "");
  return report;
}

test("a host with an embedded Postgres starts, works and stops; its process ends and leaves no server", { timeout: 60_000 }, async () => {
  const { directory, handled } = await runChild();
  assert.equal(handled, "hello");
  assert.equal(existsSync(directory), false);
});

test("a start that fails ends the embedded Postgres too", { timeout: 60_000 }, async () => {
  const { directory, error } = await runChild("fail");
  assert.equal(error, "no warm-up");
  assert.equal(existsSync(directory), false);
});

test("a process that leaves without a stop leaves no embedded Postgres behind", { timeout: 60_000 }, async () => {
  const { directory } = await runChild("leave");
  await until(() => !existsSync(`${directory}/postmaster.pid`));
});
