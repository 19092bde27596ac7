import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import type { Answer } from "./child.js";
import type { Command } from "./commands.js";
import type { Setup } from "./roles.js";

const CHILD = fileURLToPath(new URL("./child.js", import.meta.url));
const START_LIMIT_MS = 60_000;
const COMMAND_LIMIT_MS = 600_000;
const STOP_LIMIT_MS = 20_000;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** A process under measurement, seen from the benchmark. */
export class Program {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
  }

  /** Resolves when the program is ready. */
  static async start(file: string, role: string, setup: Setup): Promise<Program> {
    const child = fork(CHILD, [file, role, JSON.stringify(setup)], { execArgv: ["--expose-gc"], stdio: ["ignore", "ignore", "inherit", "ipc"] });
    const program = new Program(`${file} (${role})`, child);
    const ready = new Promise((resolve, reject) => program.#waiting.set(0, { resolve, reject }));
    child.on("message", (answer: Answer) => program.#answered(answer));
    child.once("exit", (code) => program.#exited(String(code)));
    // A command that could not be sent, to a process that is just ending.
    child.on("error", (error) => program.#exited(error.message));
    try {
      await program.#within(ready, START_LIMIT_MS, "start");
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    return program;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Rejects with what the program threw, when it ends, or after ten minutes. */
  run<T>(name: string, args: Command["args"] = {}): Promise<T> {
    if (!this.#child.connected) return Promise.reject(new Error(`${this.#name} has ended`));
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#child.send({ id, name, args } satisfies Command);
    return this.#within(answer, COMMAND_LIMIT_MS, name) as Promise<T>;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, "exit");
    if (this.#child.connected) this.#child.disconnect();
    const limit = setTimeout(() => this.#child.kill("SIGKILL"), STOP_LIMIT_MS);
    await gone;
    clearTimeout(limit);
  }

  #answered(answer: Answer): void {
    const id = "ready" in answer ? 0 : answer.id;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if ("error" in answer && answer.error !== undefined) waiting?.reject(new Error(`${this.#name}: ${answer.error}`));
    else waiting?.resolve("result" in answer ? answer.result : undefined);
  }

  #exited(reason: string): void {
    for (const { reject } of this.#waiting.values()) reject(new Error(`${this.#name} ended: ${reason}`));
    this.#waiting.clear();
  }

  #within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => reject(new Error(`${this.#name}: ${what} took longer than ${ms} ms`)), ms);
      work.then(resolve, reject).finally(() => clearTimeout(limit));
    });
  }
}

export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
