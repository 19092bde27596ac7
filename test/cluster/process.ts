import { fork } from "node:child_process";
import type { ChildProcess, ForkOptions } from "node:child_process";
import { once } from "node:events";

/** What a child can be told to do, each by a function that resolves with JSON. */
export type Commands<C> = { readonly [K in keyof C]: (...args: never[]) => Promise<unknown> };

export interface Request {
  readonly id: number;
  readonly command: string;
  readonly args: readonly unknown[];
}

export interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly name: string; readonly message: string; readonly code?: string; readonly retryable?: boolean };
}

type Pending = { readonly resolve: (value: never) => void; readonly reject: (error: Error) => void };

/** A script in a process of its own. `do` carries commands to it; it ends with its parent. */
export class ScriptProcess<C extends Commands<C>> {
  readonly exited: Promise<void>;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  #commands = 0;

  /** `config` reaches the script as JSON in its environment, under NODE_CONFIG; `onReport` gets what it sends unasked. */
  constructor(script: URL, config: object, options: ForkOptions = {}, onReport: (report: never) => void = () => undefined) {
    this.#child = fork(script, {
      env: { ...process.env, NODE_CONFIG: JSON.stringify(config) },
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      ...options,
    });
    this.#child.on("message", (message: Reply | never) => ("id" in message ? this.#settle(message) : onReport(message)));
    this.#child.on("exit", () => this.#failAll());
    // Of a message to a process that has ended: its promise is rejected below.
    this.#child.on("error", () => undefined);
    this.exited = once(this.#child, "exit").then(() => undefined);
    // One that is frozen does not see that its parent has gone.
    const kill = (): void => this.signal("SIGKILL");
    process.once("exit", kill);
    void this.exited.then(() => process.off("exit", kill));
  }

  do<K extends keyof C & string>(command: K, ...args: Parameters<C[K]>): ReturnType<C[K]> {
    const id = ++this.#commands;
    const result = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    this.#child.send({ id, command, args }, (error) => {
      if (error !== null) this.#settle({ id, error });
    });
    return result as ReturnType<C[K]>;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(name: "SIGKILL" | "SIGSTOP" | "SIGCONT" | "SIGTERM"): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    if (this.running) this.signal("SIGKILL");
    await this.exited;
  }

  #settle({ id, value, error }: Reply): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (error === undefined) pending?.resolve(value as never);
    else pending?.reject(Object.assign(new Error(error.message), error));
  }

  #failAll(): void {
    for (const { reject } of this.#pending.values()) reject(new Error("the node's process has ended"));
    this.#pending.clear();
  }
}

/** The other end, in the script: does what the parent says, and ends when it is gone. */
export function serveCommands<C extends Commands<C>>(commands: C): void {
  const run = async ({ id, command, args }: Request): Promise<void> => {
    try {
      const value = await commands[command as keyof C](...(args as never[]));
      process.send?.({ id, value: value ?? null });
    } catch (error) {
      const { name, message, code, retryable } = error as Error & { code?: string; retryable?: boolean };
      process.send?.({ id, error: { name, message, code, retryable } });
    }
  };
  process.on("message", (request: Request) => void run(request));
  process.on("disconnect", () => process.exit(0));
}
