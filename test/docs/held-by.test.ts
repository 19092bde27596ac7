import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";

const ROOT = resolve(import.meta.dirname, "../../..");
const ROW = /^\| [^|]+ \| `([\w/.-]+\.test\.ts)`: (.+) \|$/;

/** Rows of the tables of claims, without their heads; a table ends where its lines do. */
function rowsOf(page: string): string[] {
  const lines = page.split("\n");
  return lines.flatMap((line, at) => (line === "| claim | held by |" ? lines.slice(at + 2, lines.indexOf("", at) === -1 ? undefined : lines.indexOf("", at)) : [])).filter((line) => line !== "");
}

/** Test names of a source; what a name is given by its case stands as `…`. */
function namesIn(source: string): string[] {
  return Array.from(source.matchAll(/\b(?:test|it)\((?:"([^"]+)"|`([^`]+)`)/g), ([, plain, template]) => plain ?? template!.replaceAll(/\$\{[^}]+\}/g, "…"));
}

for (const path of ["docs/security.md", "docs/guides/deployment.md", "docs/guides/tls.md", "docs/reference/rpc.md"]) {
  test(`every test that ${path} names for a claim is there`, async () => {
    const rows = rowsOf(await readFile(join(ROOT, path), "utf8"));
    assert.ok(rows.length > 5, "the search finds claims");
    const missing: string[] = [];
    for (const row of rows) {
      const [, file, name] = ROW.exec(row) ?? assert.fail(`no claim with its test: ${row}`);
      const source = await readFile(join(ROOT, "test", file!), "utf8").catch(() => "");
      if (!namesIn(source).includes(name!)) missing.push(`${file}: ${name}`);
    }
    assert.deepEqual(missing, []);
  });
}
