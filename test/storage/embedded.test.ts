import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, lstat, mkdir, mkdtemp, readFile, readlink, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { serverAccount } from "#mesh/storage/embedded-account.js";
import { readableBinaries, restoreLinks } from "#mesh/storage/embedded-binaries.js";
import { startEmbedded, type EmbeddedPostgres } from "#mesh/storage/embedded.js";
import { memoryLog, silentLog } from "../support/log.js";
import { until } from "../support/wait.js";

async function ask(url: string, sql: string): Promise<Record<string, unknown>> {
  const client = new pg.Client({ connectionString: url });
  // A server that ends meanwhile fails the query; with nobody listening it would end the process too.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return ((await client.query(sql)).rows as Record<string, unknown>[])[0] ?? {};
  } finally {
    await client.end();
  }
}

const started: EmbeddedPostgres[] = [];

async function start(directory: true | string): Promise<EmbeddedPostgres> {
  const server = await startEmbedded(directory, silentLog);
  started.push(server);
  return server;
}

afterEach(() => Promise.all(started.splice(0).map((server) => server.stop())));

async function temporary(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "mesh-embedded-test-"));
  await chmod(directory, 0o755);
  t.after(async () => {
    await Promise.all(started.splice(0).map((server) => server.stop()));
    await rm(directory, { recursive: true, force: true });
  });
  return directory;
}

const answers = (url: string): Promise<boolean> => ask(url, "SELECT 1").then(() => true, () => false);

test("a throw-away server takes connections on 127.0.0.1 only, by password, and leaves nothing behind", { timeout: 30_000 }, async () => {
  const server = await start(true);
  const row = await ask(server.url, "SELECT current_setting('listen_addresses') AS at, current_setting('data_directory') AS data, lower('Ä') AS small");
  assert.equal(row["at"], "127.0.0.1");
  assert.equal(row["small"], "ä");
  const wrong = new URL(server.url);
  wrong.password = "guess";
  await assert.rejects(ask(wrong.href, "SELECT 1"), { code: "28P01" });
  await Promise.all([server.stop(), server.stop()]);
  assert.equal(await answers(server.url), false);
  await assert.rejects(stat(String(row["data"])), { code: "ENOENT" });
});

test("a directory keeps its data and its address over a restart", { timeout: 30_000 }, async (t) => {
  const directory = join(await temporary(t), "deep", "pg");
  const first = await start(directory);
  await ask(first.url, "CREATE TABLE kept AS SELECT 7 AS n");
  await first.stop();
  const second = await start(directory);
  assert.equal(second.url, first.url);
  assert.deepEqual(await ask(second.url, "SELECT n FROM kept"), { n: 7 });
});

test("several starts on one directory at once share one server, first initialisation included", { timeout: 30_000 }, async (t) => {
  const directory = join(await temporary(t), "pg");
  const servers = await Promise.all([1, 2, 3].map(() => start(directory)));
  assert.equal(new Set(servers.map((server) => server.url)).size, 1);
  assert.equal(await answers(servers[0]!.url), true);
});

test("a data directory of somebody else is refused", { timeout: 30_000 }, async (t) => {
  const directory = await temporary(t);
  await mkdir(join(directory, "data"));
  await writeFile(join(directory, "data", "PG_VERSION"), "18");
  await assert.rejects(startEmbedded(directory, silentLog), (error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, /not made by this package/);
    return true;
  });
});

test("the server ends with its process, however that dies", { timeout: 30_000 }, async (t) => {
  const directory = join(await temporary(t), "pg");
  const module = fileURLToPath(import.meta.resolve("#mesh/storage/embedded.js"));
  const program = `
    const { startEmbedded } = await import(${JSON.stringify(module)});
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    console.log((await startEmbedded(${JSON.stringify(directory)}, log)).url);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  await until(() => output.endsWith("\n"), { timeoutMs: 20_000 });
  assert.equal(await answers(output.trim()), true);
  child.kill("SIGKILL");
  await until(async () => !(await answers(output.trim())));
  await until(() => stat(join(directory, "data", "postmaster.pid")).then(() => false, () => true));
});

test("what the server says goes to the log at debug only", { timeout: 30_000 }, async () => {
  const { log, lines } = memoryLog();
  const server = await startEmbedded(true, log);
  await ask(server.url, "SELECT 1 / 0").catch(() => undefined);
  await server.stop();
  assert.ok(lines.length > 0);
  assert.deepEqual(lines.filter((line) => line.level > 20), []);
});

test("missing library links are made, several processes at once or not", async (t) => {
  const root = await temporary(t);
  await mkdir(join(root, "native", "lib"), { recursive: true });
  await writeFile(join(root, "native", "lib", "libx.so.1.2"), "library");
  const links = ["native/lib/libx.so", "native/lib/libx.so.1"].map((target) => ({ source: "native/lib/libx.so.1.2", target }));
  await writeFile(join(root, "native", "pg-symlinks.json"), JSON.stringify(links));
  await Promise.all([restoreLinks(root), restoreLinks(root), restoreLinks(root)]);
  await restoreLinks(root);
  assert.equal(await readFile(join(root, "native", "lib", "libx.so"), "utf8"), "library");
  assert.equal(await readlink(join(root, "native", "lib", "libx.so.1")), "libx.so.1.2");
});

test("binaries out of reach of the server's user are copied to where it can run them", async (t) => {
  const account = await serverAccount();
  if (account === null) return t.skip("only as root does the server run as somebody else");
  const [hidden, work] = [await temporary(t), await temporary(t)];
  await mkdir(join(hidden, "native", "bin"), { recursive: true });
  await writeFile(join(hidden, "native", "bin", "postgres"), "binary", { mode: 0o755 });
  assert.equal(await readableBinaries(join(hidden, "native"), work, account), join(hidden, "native"));
  await chmod(hidden, 0o700);
  const copy = await readableBinaries(join(hidden, "native"), work, account);
  assert.equal((await lstat(join(copy, "bin", "postgres"))).mode & 0o111, 0o111);
});
