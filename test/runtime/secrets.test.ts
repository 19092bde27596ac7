import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { parseEnvFile } from "#mesh/runtime/env-file.js";
import { openSecrets } from "#mesh/runtime/secrets.js";

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "secrets-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test("first hit wins: values, environment, env file, directory", (t) => {
  const dir = directory(t);
  const envFile = join(dir, "app.env");
  for (const name of ["A", "B", "C", "D"]) writeFileSync(join(dir, name), "dir\n");
  writeFileSync(envFile, "A=file\nB=file\nC=file\n");
  const secrets = openSecrets({ values: { A: "values" }, envFile, dir }, { A: "env", B: "env" });
  assert.deepEqual(["A", "B", "C", "D", "E"].map((name) => secrets.get(name)), ["values", "env", "file", "dir", null]);
});

test("only one trailing newline of a secret's file is cut", (t) => {
  const dir = directory(t);
  writeFileSync(join(dir, "unix"), "a b \n\n");
  writeFileSync(join(dir, "windows"), "x\r\n");
  const secrets = openSecrets({ dir }, {});
  assert.equal(secrets.get("unix"), "a b \n");
  assert.equal(secrets.get("windows"), "x");
});

test("a file that comes later is found", (t) => {
  const dir = directory(t);
  const secrets = openSecrets({ dir }, {});
  assert.equal(secrets.get("LATE"), null);
  writeFileSync(join(dir, "LATE"), "here");
  assert.equal(secrets.get("LATE"), "here");
});

test("names that could leave the directory are refused, and members of objects are no secrets", (t) => {
  const dir = directory(t);
  const inner = join(dir, "inner");
  mkdirSync(inner);
  writeFileSync(join(dir, "outside"), "no");
  const secrets = openSecrets({ dir: inner, values: {} }, {});
  for (const name of ["../outside", "..", "a/b", "a\\b", "", "a\0b", "x".repeat(300)]) assert.throws(() => secrets.get(name), MeshConfigurationError);
  assert.equal(secrets.get("constructor"), null);
  assert.equal(secrets.get("."), null);
});

test("an explicit env file or directory that is missing is an error, the default ones are not", (t) => {
  const dir = directory(t);
  assert.throws(() => openSecrets({ envFile: join(dir, "missing.env") }, {}), /secrets\.envFile.*missing\.env/);
  assert.throws(() => openSecrets({ dir: join(dir, "missing") }, {}), /secrets\.dir.*missing/);
  assert.equal(openSecrets({ envFile: ".env", dir: "/run/secrets" }, {}).get("NOTHING"), null);
});

test("a secret's file over 1 MiB is refused without its content in the message", (t) => {
  const dir = directory(t);
  writeFileSync(join(dir, "BIG"), "s3cret".repeat(200_000));
  assert.throws(() => openSecrets({ dir }, {}).get("BIG"), (error: Error) => error instanceof MeshConfigurationError && !error.message.includes("s3cret"));
});

test("env files know comments, export, quotes and lines that go on", () => {
  const text = [
    "\uFEFF# comment", "PLAIN=a b # note", "HASH=a#b", "export SHELL_LIKE = yes ", "EMPTY=", "SINGLE='a # \\n $x'",
    'DOUBLE="line\\none \\"q\\"" # note', 'MULTI="first', 'second"', "# OFF=1", "not a line", "TWICE=1", "TWICE=2", "URL=postgres://a:b@c/d?x=y",
  ].join("\r\n");
  assert.deepEqual(Object.fromEntries(parseEnvFile(text)), {
    PLAIN: "a b", HASH: "a#b", SHELL_LIKE: "yes", EMPTY: "", SINGLE: "a # \\n $x", DOUBLE: 'line\none "q"',
    MULTI: "first\r\nsecond", TWICE: "2", URL: "postgres://a:b@c/d?x=y",
  });
});
