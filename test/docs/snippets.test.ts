import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import ts from "typescript";
import { createDatabase } from "../support/database.js";
import { programsOf, type DocumentedProgram } from "./programs.js";

const ROOT = resolve(import.meta.dirname, "../../..");
// Inside the package, so that programs import it by its own name.
const WORK = join(ROOT, ".build", "docs-programs");
const RUN_LIMIT_MS = 30_000;
/** For programs of production, which have none in their text. */
const TOKEN = "0123456789abcdef0123456789abcdef";

const pages = ["README.md", ...(await markdownFiles(join(ROOT, "docs")))];

interface Prepared extends DocumentedProgram {
  readonly title: string;
  readonly file: string;
}

const programs: Prepared[] = [];
for (const page of pages) {
  for (const program of programsOf(await readFile(join(ROOT, page), "utf8"))) {
    const file = join(WORK, `${page.replaceAll(/[^a-z]/gi, "-")}-${program.line}.ts`);
    programs.push({ ...program, title: `${page}:${program.line}`, file });
  }
}

describe("the documentation", () => {
  before(async () => {
    await rm(WORK, { recursive: true, force: true });
    await mkdir(WORK, { recursive: true });
    for (const { file, source } of programs) await writeFile(file, `${source}\nexport {};\n`);
    compile(programs.map(({ file }) => file));
  });
  after(() => rm(WORK, { recursive: true, force: true }));

  test("has programs to run", () => assert.ok(programs.length > 0));

  for (const program of programs) {
    test(`${program.title} compiles, runs and prints what the page says`, async () => {
      const database = await createDatabase();
      try {
        const printed = await run(program.file.replace(/\.ts$/, ".js"), database.url, program.output);
        assert.deepEqual(missingLines(printed, program.output), [], `it printed:\n${printed}`);
      } finally {
        await database.drop();
      }
    });
  }
});

async function markdownFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true });
  return entries.filter((name) => name.endsWith(".md")).map((name) => relative(ROOT, join(folder, name))).sort();
}

function compile(files: string[]): void {
  const { config } = ts.readConfigFile(join(ROOT, "test/tsconfig.json"), ts.sys.readFile);
  const base = ts.parseJsonConfigFileContent({ ...config, include: [], files: [] }, ts.sys, join(ROOT, "test"));
  const program = ts.createProgram(files, {
    ...base.options,
    rootDir: WORK,
    outDir: WORK,
    noUnusedLocals: false,
    noPropertyAccessFromIndexSignature: false,
    exactOptionalPropertyTypes: false,
    incremental: false,
    tsBuildInfoFile: undefined!,
  });
  const emitted = program.emit();
  const diagnostics = [...ts.getPreEmitDiagnostics(program), ...emitted.diagnostics];
  const host = { getCanonicalFileName: (name: string) => name, getCurrentDirectory: () => ROOT, getNewLine: () => "\n" };
  assert.equal(ts.formatDiagnostics(diagnostics, host), "");
}

/** Programs that serve for ever get SIGTERM once they have printed all that was promised; each must end with code 0. */
function run(file: string, url: string, expected: readonly string[]): Promise<string> {
  return new Promise((resolvePrinted, reject) => {
    const child = spawn(process.execPath, [file], { cwd: WORK, env: { ...process.env, DATABASE_URL: url, MESH_TOKEN: TOKEN, HOSTNAME: undefined } });
    let output = "";
    let errors = "";
    let asked = false;
    const limit = setTimeout(() => child.kill("SIGKILL"), RUN_LIMIT_MS);
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (asked || expected.length === 0 || missingLines(output, expected).length > 0) return;
      asked = child.kill("SIGTERM");
    });
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      clearTimeout(limit);
      if (code === 0 || signal === "SIGTERM") resolvePrinted(output);
      else reject(new Error(`ended with ${signal ?? code}\n${output}\n${errors}`));
    });
  });
}

function missingLines(printed: string, expected: readonly string[]): string[] {
  const lines = new Set(printed.split("\n"));
  return expected.filter((line) => !lines.has(line));
}
