import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import type { Socket } from "node:net";
import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../logger.js";
import { MeshError } from "../errors.js";
import type { ServerAccount } from "./embedded-account.js";

export interface ServerOptions {
  readonly binaries: string;
  readonly dataDirectory: string;
  readonly port: number;
  readonly account: ServerAccount | null;
  readonly settings: Readonly<Record<string, string>>;
  /** Removed where this process ends without stopping the server. */
  readonly temporaryDirectory: string | null;
  readonly log: Logger;
}

const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 10_000;
const KEPT_LINES = 20;

/**
 * Becomes the server, after leaving a watcher behind that reads file descriptor 3: a line ends the watcher, the end of
 * file, which comes with the end of this process however it died, shuts the server down.
 */
const LAUNCH = `
(
  read -r _ && exit
  kill -INT $$
  tries=0
  while [ -e postmaster.pid ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  [ -z "$1" ] || rm -rf "$1"
) <&3 >/dev/null 2>&1 &
shift
exec "$@" 3<&-
`;

/** A running server. It ends with this process at the latest. */
export class EmbeddedServer {
  readonly #child: ChildProcess;
  readonly #watcher: Duplex;
  readonly #exited: Promise<void>;
  readonly #lines: string[] = [];
  #running = true;
  #serving = false;

  private constructor(child: ChildProcess, log: Logger) {
    this.#child = child;
    this.#watcher = child.stdio[3] as Duplex;
    this.#watcher.on("error", () => undefined);
    this.#exited = new Promise((resolve) => {
      child.once("error", (error) => this.#keep(error.message));
      child.once("exit", () => {
        this.#running = false;
        if (this.#serving) log.error("the embedded Postgres has ended by itself", { output: this.output });
        this.#watcher.end("over\n");
      });
      // After the last of its output, and after the watcher.
      child.once("close", () => resolve());
    });
    readLines(child.stderr as Readable, (line) => {
      this.#keep(line);
      log.debug("embedded Postgres", { line });
    });
  }

  /** Resolves when the server takes connections. */
  static async start(options: ServerOptions): Promise<EmbeddedServer> {
    const server = new EmbeddedServer(launch(options), options.log);
    if (!(await server.#ready())) {
      await server.stop();
      throw new MeshError(`the embedded Postgres did not start: ${server.output}`, { code: "EMBEDDED_START_FAILED" });
    }
    server.#serving = true;
    server.#holdProcess(false);
    return server;
  }

  /** The last lines that the server wrote. */
  get output(): string {
    return this.#lines.join("\n");
  }

  /** Shuts down as `pg_ctl stop -m fast` does: connections are cut, data is safe. */
  async stop(): Promise<void> {
    this.#serving = false;
    this.#holdProcess(true);
    this.#child.kill("SIGINT");
    const limit = new AbortController();
    const cut = sleep(STOP_LIMIT_MS, undefined, { signal: limit.signal }).then(
      () => this.#child.kill("SIGQUIT"),
      () => undefined,
    );
    await this.#exited;
    limit.abort();
    await cut;
  }

  async #ready(): Promise<boolean> {
    const end = performance.now() + START_LIMIT_MS;
    while (this.#running && performance.now() < end) {
      if (this.#lines.some((line) => line.includes("ready to accept connections"))) return true;
      await sleep(5);
    }
    return false;
  }

  #keep(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > KEPT_LINES) this.#lines.shift();
  }

  /** While it is not held, this process may exit as if there were no server: the watcher sees to the rest. */
  #holdProcess(held: boolean): void {
    for (const handle of [this.#child, this.#child.stderr, this.#watcher] as Socket[]) {
      if (held) handle.ref();
      else handle.unref();
    }
  }
}

function launch({ binaries, dataDirectory, port, account, settings, temporaryDirectory }: ServerOptions): ChildProcess {
  const all = { listen_addresses: "127.0.0.1", unix_socket_directories: "", port: String(port), log_min_messages: "log", log_checkpoints: "off", ...settings };
  const flags = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const command = [join(binaries, "bin", "postgres"), "-D", dataDirectory, ...flags];
  return spawn("/bin/sh", ["-c", LAUNCH, "sh", temporaryDirectory ?? "", ...command], {
    ...credentials(account),
    // Where the watcher looks for the lock file.
    cwd: dataDirectory,
    env: serverEnvironment(),
    stdio: ["ignore", "ignore", "pipe", "pipe"],
    // A session of its own: Ctrl-C in the terminal must end this process first, which still needs its database.
    detached: true,
  });
}

export function credentials(account: ServerAccount | null): { uid?: number; gid?: number } {
  return account === null ? {} : { uid: account.uid, gid: account.gid };
}

/** Nothing of ours: variables like PGDATA or PGPORT would speak to the server. Messages in English, since we read them. */
export function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" };
}

function readLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() as string;
    lines.forEach(onLine);
  });
}
