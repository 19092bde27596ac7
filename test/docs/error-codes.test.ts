import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";

const ROOT = resolve(import.meta.dirname, "../../..");

test("every error code of the source is in the reference, with what to do", async () => {
  const page = await readFile(join(ROOT, "docs/reference/errors.md"), "utf8");
  const codes = new Set<string>();
  for (const file of await readdir(join(ROOT, "src"), { recursive: true })) {
    if (!file.endsWith(".ts")) continue;
    const source = await readFile(join(ROOT, "src", file), "utf8");
    for (const [, code] of source.matchAll(/\bcode: "([A-Z][A-Z_]+)"/g)) codes.add(code!);
  }
  assert.ok(codes.size > 20, "the search finds codes");
  assert.deepEqual([...codes].filter((code) => !page.includes(`\`${code}\``)).sort(), []);
});
