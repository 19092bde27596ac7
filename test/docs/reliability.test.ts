import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";

const ROOT = resolve(import.meta.dirname, "../../..");

test("every promise of the reliability page is held by a scenario that there is, and every scenario is on the page", async () => {
  const page = await readFile(join(ROOT, "docs/reliability.md"), "utf8");
  const table = page.slice(page.indexOf("## Promises"), page.indexOf("## What is not judged"));
  const held = [...table.matchAll(/\| `([a-z-]+)` \|$/gm)].map(([, name]) => name!);
  const files = await readdir(join(ROOT, "test/faults/scenarios"));
  assert.deepEqual([...held].sort(), files.map((file) => file.replace(/\.ts$/, "")).sort());
});

/** What the page says in numbers, and the constant that the suite judges by: `file`, `name`, and the words that the page must hold for it. */
const FIGURES: readonly (readonly [file: string, name: string, words: (value: number) => string])[] = [
  ["protocol.ts", "HEARTBEAT_MS", (ms) => `\`heartbeatMs\` ${ms}`],
  ["protocol.ts", "OFFLINE_AFTER_MS", (ms) => `\`offlineAfterMs\` ${ms}`],
  ["protocol.ts", "LEASE_MS", (ms) => `\`leaseMs\` ${ms}`],
  ["run.ts", "QUICK_LIMIT_MS", (ms) => `a quick run of more than ${ms / 1000} s`],
  ["trial.ts", "BACK_LIMIT_MS", (ms) => `make them again within ${ms / 1000} s`],
  ["checks.ts", "STARVED_MS", (ms) => `failed calls with ${ms} ms of them in the second before`],
  ["checks.ts", "MOST_UNJUDGED", (share) => `more than ${share * 100} % of the calls`],
  ["stalls.ts", "LEAST_MS", (ms) => `did not let it run for more than ${ms} ms`],
  ["journal.ts", "FLUSH_MS", (ms) => `in the last ${ms} ms before has not been reported`],
  ["checks/kills.ts", "NOTICE_MS", (ms) => `in flight on it fail within ${ms} ms`],
  ["checks/kills.ts", "AUDIT_SLACK_MS", (ms) => `${ms} ms on \`leaseMs\``],
  ["checks/load.ts", "MOST_OMITTED", (share) => `more than ${share * 100} % was left out`],
  ["checks/overload.ts", "LEAST_GOODPUT", (share) => `at least ${share * 100} % of its peak`],
  ["checks/overload.ts", "MOST_TIMEOUTS", (share) => `\`TIMEOUT\` ${share * 100} % at most`],
  ["checks/overload.ts", "AT_ONCE_MS", (ms) => `half of them within ${ms} ms`],
  ["checks/recovery.ts", "LEAST_RATE", (share) => `calls between known peers keep ${share * 100} % of their rate`],
  ["scenarios/broadcasts.ts", "LATE_MS", (ms) => `on every node, each within ${ms / 1000} s`],
  ["scenarios/frozen.ts", "SLACK_MS", (ms) => `${ms} ms are\nallowed on \`offlineAfterMs\``],
  ["scenarios/overload.ts", "CALL_LIMIT_MS", (ms) => `of their ${ms}, and`],
  ["scenarios/postgres-down.ts", "BACK_LIMIT_MS", (ms) => `all is back within ${ms / 1000} s`],
  ["scenarios/rolling-restart.ts", "LAST_MOMENT_MS", (ms) => `in the last ${ms} ms before a node stops`],
];

test("every figure by which the suite judges is on the reliability page as it is in the suite", async () => {
  const page = await readFile(join(ROOT, "docs/reliability.md"), "utf8");
  for (const [file, name, words] of FIGURES) {
    const source = await readFile(join(ROOT, "test/faults", file), "utf8");
    const value = new RegExp(`const ${name} = ([\\d._]+);`).exec(source)?.[1];
    assert.ok(value !== undefined, `${file} has no number ${name}`);
    const expected = words(Number(value.replaceAll("_", "")));
    assert.ok(page.includes(expected), `the page does not say “${expected}” (${name} of ${file})`);
  }
});
