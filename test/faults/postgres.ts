import { execFile } from "node:child_process";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
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
    const pids = await this.#processes();
    for (const pid of pids) signal(pid, "SIGSTOP");
    await sleep(ms);
    for (const pid of pids) signal(pid, "SIGCONT");
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

  /** The postmaster first: while it stands still no process is added. */
  async #processes(): Promise<number[]> {
    const postmaster = await this.#postmaster();
    const { stdout } = await promisify(execFile)("ps", ["-A", "-o", "pid=,ppid="]);
    const all = stdout.trim().split("\n").map((line) => line.trim().split(/\s+/).map(Number) as [number, number]);
    return [postmaster, ...all.filter(([, parent]) => parent === postmaster).map(([pid]) => pid)];
  }
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
