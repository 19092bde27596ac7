import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { MeshConfigurationError, MeshError } from "../errors.js";
import { mayEnter, type ServerAccount } from "./embedded-account.js";
import { credentials, serverEnvironment } from "./embedded-server.js";

const run = promisify(execFile);

/** Kept inside the data directory, so that the two can never be parted. */
const PASSWORD_FILE = "chimpbase-password";
const PORT_FILE = "chimpbase-port";
const INITDB = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"];

export interface Cluster {
  readonly dataDirectory: string;
  readonly password: string;
  /** Where it was served last, 0 if never. Kept to, so that other processes find it again after a restart. */
  readonly lastPort: number;
}

/** What the lock file of a running server says. */
export interface RunningServer {
  readonly pid: number;
  readonly port: number;
  readonly ready: boolean;
}

/** The cluster in `directory`, made where there is none yet. Two processes may do so at once: one's is taken by both. */
export async function openCluster(directory: string, binaries: string, account: ServerAccount | null): Promise<Cluster> {
  await makeDirectory(directory, account);
  const dataDirectory = join(directory, "data");
  if (!(await exists(dataDirectory))) await initialise(directory, dataDirectory, binaries, account);
  const password = await readFile(join(dataDirectory, PASSWORD_FILE), "utf8").catch(() => {
    throw new MeshConfigurationError(`database.embedded: ${dataDirectory} holds data that was not made by this package; choose another directory`);
  });
  const lastPort = Number(await readFile(join(dataDirectory, PORT_FILE), "utf8").catch(() => "0"));
  return { dataDirectory, password, lastPort };
}

export async function rememberPort({ dataDirectory, lastPort }: Cluster, port: number): Promise<void> {
  if (port !== lastPort) await writeFile(join(dataDirectory, PORT_FILE), String(port));
}

/** The server that runs on this data now, or null. */
export async function runningServer(dataDirectory: string): Promise<RunningServer | null> {
  const lock = await readFile(join(dataDirectory, "postmaster.pid"), "utf8").catch(() => null);
  const [pid, , , port, , , , status] = lock?.split("\n") ?? [];
  if (pid === undefined || port === undefined || !isAlive(Number(pid))) return null;
  return { pid: Number(pid), port: Number(port), ready: status?.startsWith("ready") === true };
}

async function makeDirectory(directory: string, account: ServerAccount | null): Promise<void> {
  await mkdir(directory, { recursive: true });
  if (account === null || (await mayEnter(directory, account))) return;
  throw new MeshConfigurationError(
    `database.embedded: Postgres does not run as root, and the user "${account.name}" that it runs as instead cannot get into ${directory}; ` +
      `choose a directory that all users can reach, or run as another user than root`,
  );
}

async function initialise(directory: string, dataDirectory: string, binaries: string, account: ServerAccount | null): Promise<void> {
  const draft = join(directory, `draft-${randomBytes(6).toString("hex")}`);
  const password = randomBytes(24).toString("hex");
  const passwordFile = `${draft}-password`;
  try {
    await mkdir(draft, { mode: 0o700 });
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (account !== null) await Promise.all([draft, passwordFile].map((path) => chown(path, account.uid, account.gid)));
    await initdb([...INITDB, ...(await builtinLocale(binaries)), `--pgdata=${draft}`, `--pwfile=${passwordFile}`], binaries, account);
    await rename(passwordFile, join(draft, PASSWORD_FILE));
    await rename(draft, dataDirectory);
  } catch (error) {
    // Another process was faster: a directory is not renamed over one that is not empty.
    if (!(await exists(dataDirectory))) throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
    await rm(passwordFile, { force: true });
  }
}

async function initdb(flags: readonly string[], binaries: string, account: ServerAccount | null): Promise<void> {
  const options = { ...credentials(account), cwd: "/", env: serverEnvironment() };
  await run(join(binaries, "bin", "initdb"), flags, options).catch((error: Error & { stderr?: string }) => {
    throw new MeshError(`initdb of the embedded Postgres failed: ${error.stderr || error.message}`, { code: "EMBEDDED_START_FAILED", cause: error });
  });
}

/** From Postgres 17 on: Unicode-aware `lower` and `upper`, without any locale of the system. */
async function builtinLocale(binaries: string): Promise<string[]> {
  const { stdout } = await run(join(binaries, "bin", "postgres"), ["--version"]);
  const major = Number(/(\d+)/.exec(stdout)?.[1]);
  return major >= 17 ? ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] : [];
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false);
}
