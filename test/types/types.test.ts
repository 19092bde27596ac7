import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const cases = join(root, "test/types/cases");

// A wrong call that compiles leaves its @ts-expect-error unused, which is an error too.
for (const experimentalDecorators of [true, false]) {
  test(`the cases compile, and only they, with ${experimentalDecorators ? "legacy" : "standard"} decorators`, () => {
    const { options } = ts.getParsedCommandLineOfConfigFile(join(root, "tsconfig.json"), {}, { ...ts.sys, onUnRecoverableConfigFileDiagnostic: (problem) => assert.fail(String(problem.messageText)) })!;
    const program = ts.createProgram(readdirSync(cases).map((file) => join(cases, file)), {
      ...options, rootDir: root, composite: false, declaration: false, noEmit: true, experimentalDecorators, emitDecoratorMetadata: experimentalDecorators, noUnusedLocals: false, noUnusedParameters: false,
    });
    const problems = ts.getPreEmitDiagnostics(program);
    assert.equal(ts.formatDiagnostics(problems, { getCanonicalFileName: (name) => name, getCurrentDirectory: () => root, getNewLine: () => "\n" }), "");
  });
}
