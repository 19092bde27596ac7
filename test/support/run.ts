/**
 * `npm test`: all test files on a Postgres, then a look for what they left behind.
 * `npm test -- bus queue` runs the files whose path holds one of the words.
 */
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";
import { createLogger } from "#mesh/logger.js";
import { startEmbedded } from "#mesh/storage/embedded.js";
import { RUN_ID, leftDatabases } from "./database.js";
import { until } from "./wait.js";

const FILES_AT_ONCE = 4;
/** A file that takes longer hangs: most often something was not closed that keeps the process alive. */
const FILE_LIMIT_MS = 120_000;

const built = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const sources = resolve(built, "../../test");

async function testFiles(words: readonly string[]): Promise<string[]> {
  const paths = await readdir(built, { recursive: true });
  const tests = paths.filter((path) => path.endsWith(".test.js"));
  const wanted = tests.filter((path) => words.length === 0 || words.some((word) => path.includes(word)));
  // What was built from a file that is gone is no test any more.
  return wanted.filter((path) => existsSync(join(sources, path.replace(/js$/, "ts")))).sort().map((path) => join(built, path));
}

interface Outcome {
  readonly file: string;
  readonly passed: number;
  /** Their names and what they threw, said again at the end of the run: the end of a long output is what gets kept. */
  readonly failures: readonly string[];
  readonly hung: boolean;
}

/** One run for each file, because the timeout of `run` ends a test but not everywhere a file that does not exit. */
async function runFile(path: string): Promise<Outcome> {
  const file = relative(built, path);
  const limit = AbortSignal.timeout(FILE_LIMIT_MS);
  let [passed, output] = [0, ""];
  const failures: string[] = [];
  const stream = run({ files: [path], signal: limit });
  stream.on("test:fail", ({ name, details, todo, skip }) => void (todo === undefined && skip === undefined && failures.push(`${name}: ${String(details.error.cause ?? details.error)}`)));
  stream.on("test:pass", () => void passed++);
  for await (const chunk of stream.compose(new spec())) output += chunk as string;
  const report = output.replaceAll(/^.*ℹ .*\n/gm, "").trim();
  process.stdout.write(`${file}\n${report.replaceAll(/^/gm, "  ")}\n`);
  return { file, passed, failures, hung: limit.aborted };
}

async function runFiles(files: readonly string[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const waiting = [...files];
  const work = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) outcomes.push(await runFile(file));
  };
  await Promise.all(Array.from({ length: FILES_AT_ONCE }, work));
  return outcomes;
}

/** Processes that a test has started and not ended: they carry this run's id in their environment. */
async function leftProcesses(): Promise<{ pid: number; command: string }[]> {
  const pids = existsSync("/proc") ? (await readdir("/proc")).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid) : [];
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
      if (!environment.includes(`TEST_RUN_ID=${RUN_ID}`)) return null;
      const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return { pid: Number(pid), command: command.replaceAll("\0", " ").trim() };
    }),
  );
  return found.filter((left) => left !== null);
}

/** What is left a moment after the last file has ended, as lines; it is cleared away. */
async function clearLeftovers(): Promise<string[]> {
  await until(async () => (await leftProcesses()).length === 0, { timeoutMs: 2_000 }).catch(() => undefined);
  const processes = await leftProcesses();
  for (const { pid } of processes) process.kill(pid, "SIGKILL");
  const lines = processes.map(({ pid, command }) => `process ${pid}: ${command}`);
  return [...lines, ...(await leftDatabases())].map((line) => `left behind: ${line}`);
}

function problemsOf({ file, passed, failures, hung }: Outcome): string[] {
  if (passed + failures.length === 0) return [`${file} ran no test`];
  if (hung) return [`${file} did not end within ${FILE_LIMIT_MS / 1000} s`];
  return failures.map((failure) => `${file}: ${failure.replaceAll("\n", "\n    ")}`);
}

async function main(): Promise<number> {
  const files = await testFiles(process.argv.slice(2));
  if (files.length === 0) {
    console.error("no test file matches");
    return 1;
  }
  const given = process.env["DATABASE_URL"];
  const server = given === undefined ? await startEmbedded(true, createLogger({ level: "warn" }), { max_connections: "400" }) : null;
  try {
    process.env["TEST_DATABASE_URL"] = server?.url ?? given;
    process.env["TEST_RUN_ID"] = RUN_ID;
    const outcomes = await runFiles(files);
    const problems = [...outcomes.flatMap(problemsOf), ...(await clearLeftovers())];
    if (problems.length > 0) console.error(`\nproblems:\n  ${problems.join("\n  ")}`);
    const total = (count: (outcome: Outcome) => number): number => outcomes.reduce((sum, outcome) => sum + count(outcome), 0);
    console.log(`\n${outcomes.length} files on Node ${process.version}\n${total(({ passed }) => passed)} passed, ${total(({ failures }) => failures.length)} failed`);
    return problems.length === 0 ? 0 : 1;
  } finally {
    await server?.stop();
  }
}

process.exitCode = await main();
