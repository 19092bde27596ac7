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
