import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";

const ROOT = resolve(import.meta.dirname, "../../..");

test("every limit in the reference names a test that is there", async () => {
  const page = await readFile(join(ROOT, "docs/reference/limits.md"), "utf8");
  const rows = page.split("\n").filter((line) => /\.test\.ts` \|$/.test(line));
  assert.ok(rows.length > 20, "the search finds limits");
  for (const row of rows) {
    const names = Array.from(row.split("|").at(-2)!.matchAll(/`([^`]+)`/g), ([, name]) => name!);
    const folder = dirname(names[0]!);
    for (const name of names) assert.ok(existsSync(join(ROOT, name.includes("/") ? name : join(folder, name))), `${name}, in: ${row}`);
  }
});
