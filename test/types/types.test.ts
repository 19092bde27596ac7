import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const cases = join(root, "test/types/cases");

// A wrong call that compiles leaves its @ts-expect-error unused, which is an error too. The build of the tests compiles
// the same files with legacy decorators.
test("the cases compile, and only they, with standard decorators", () => {
  const { options } = ts.getParsedCommandLineOfConfigFile(join(root, "tsconfig.json"), {}, { ...ts.sys, onUnRecoverableConfigFileDiagnostic: (problem) => assert.fail(String(problem.messageText)) })!;
  const files = readdirSync(cases).map((file) => join(cases, file));
  const program = ts.createProgram(files, { ...options, rootDir: root, composite: false, declaration: false, noEmit: true, noUnusedParameters: false });
  const problems = ts.getPreEmitDiagnostics(program);
  assert.equal(ts.formatDiagnostics(problems, { getCanonicalFileName: (name) => name, getCurrentDirectory: () => root, getNewLine: () => "\n" }), "");
});
