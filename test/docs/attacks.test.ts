import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";

const ROOT = resolve(import.meta.dirname, "../../..");

test("every test that the table of attacks names is there", async () => {
  const page = await readFile(join(ROOT, "docs/security.md"), "utf8");
  const rows = [...page.matchAll(/^\| [^|]+ \| [^|]+ \| `([\w/.-]+\.test\.ts)`: (.+) \|$/gm)];
  const lines = page.slice(page.indexOf("## Attacks tried")).split("\n").filter((line) => line.startsWith("| ")).length;
  assert.equal(rows.length, lines - 1, "the search finds every row but the head");
  const missing: string[] = [];
  for (const [, file, name] of rows) {
    const source = await readFile(join(ROOT, "test", file!), "utf8").catch(() => "");
    if (!source.includes(`test("${name}"`)) missing.push(`${file}: ${name}`);
  }
  assert.deepEqual(missing, []);
});
