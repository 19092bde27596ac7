import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { createLogger } from "@chimpbase/mesh";
import { startEmbedded, type EmbeddedPostgres } from "#mesh/storage/embedded.js";
import { until } from "../support/wait.js";

const log = createLogger({ level: "silent" });

/** `fast` ends sessions and keeps all data; `immediate` is a crash, with recovery from the log. */
export type ShutdownMode = "fast" | "immediate";

/** A Postgres server of one's own, with its data on disk, that can be taken down and brought back on the same port. */
export class FaultyPostgres {
  readonly #directory: string;
  #server: EmbeddedPostgres;
  #running = true;

  private constructor(directory: string, server: EmbeddedPostgres) {
    this.#directory = directory;
    this.#server = server;
  }

  static async open(): Promise<FaultyPostgres> {
    const directory = await mkdtemp(join(tmpdir(), "mesh-faults-"));
    // The server may run as another user than root.
    await chmod(directory, 0o755);
    return new FaultyPostgres(directory, await startEmbedded(directory, log));
  }

  get port(): number {
    return Number(new URL(this.#server.url).port);
  }

  /** Of a database on this server, as its superuser. */
  url(database: string): string {
    return Object.assign(new URL(this.#server.url), { pathname: `/${database}` }).href;
  }

  async stop(mode: ShutdownMode): Promise<void> {
    this.#running = false;
    if (mode === "immediate") await this.#crash();
    await this.#server.stop();
  }

  /** Does nothing where it runs. */
  async start(): Promise<void> {
    if (this.#running) return;
    this.#server = await startEmbedded(this.#directory, log);
    this.#running = true;
  }

  async restart(mode: ShutdownMode, downMs = 0): Promise<void> {
    await this.stop(mode);
    await sleep(downMs);
    await this.start();
  }

  /** All processes of the server stand still, as with a disk or a machine that hangs; no connection ends. */
  async freeze(ms: number): Promise<void> {
    // While it stands still no process is added.
    const stopped = [await this.#postmaster()];
    const thaw = (): void => stopped.forEach((pid) => signal(pid, "SIGCONT"));
    process.once("exit", thaw);
    try {
      signal(stopped[0]!, "SIGSTOP");
      for (const pid of await childrenOf(stopped[0]!)) {
        stopped.push(pid);
        signal(pid, "SIGSTOP");
      }
      await sleep(ms);
    } finally {
      thaw();
      process.off("exit", thaw);
    }
  }

  async query<T extends pg.QueryResultRow>(database: string, sql: string, params: unknown[] = []): Promise<T[]> {
    const client = new pg.Client({ connectionString: this.url(database), application_name: "faults" });
    // A connection may be terminated by a fault while it is idle.
    client.on("error", () => undefined);
    await client.connect();
    try {
      return (await client.query<T>(sql, params)).rows;
    } finally {
      await client.end();
    }
  }

  async close(): Promise<void> {
    await this.#server.stop();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #crash(): Promise<void> {
    const pid = await this.#postmaster();
    process.kill(pid, "SIGQUIT");
    await until(() => !isAlive(pid), { message: "the server has ended" });
  }

  async #postmaster(): Promise<number> {
    return Number((await readFile(join(this.#directory, "data", "postmaster.pid"), "utf8")).split("\n")[0]);
  }
}

/** From /proc where there is one: `ps` is not on every system. */
async function childrenOf(parent: number): Promise<number[]> {
  const processes = existsSync("/proc/self/stat") ? await processesOfProc() : await processesOfPs();
  return processes.filter(([, ppid]) => ppid === parent).map(([pid]) => pid);
}

type ProcessAndParent = readonly [pid: number, ppid: number];

async function processesOfProc(): Promise<ProcessAndParent[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")));
  // The name of the program, in parentheses, may hold anything.
  return stats.map((stat) => [parseInt(stat, 10), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])]);
}

async function processesOfPs(): Promise<ProcessAndParent[]> {
  const { stdout } = await promisify(execFile)("ps", ["-A", "-o", "pid=,ppid="]);
  return stdout.trim().split("\n").map((line) => line.trim().split(/\s+/).map(Number) as [number, number]);
}

/** One that has ended meanwhile needs none. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
