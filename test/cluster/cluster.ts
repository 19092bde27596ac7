import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createDatabase } from "../support/database.js";
import type { TestDatabase } from "../support/database.js";
import type { NodeCommands, NodeConfig, Reply } from "./protocol.js";

const SCRIPT = new URL("./node.js", import.meta.url);

type Pending = { readonly resolve: (value: never) => void; readonly reject: (error: Error) => void };

/** A node in a process of its own. `do` carries commands; the process ends with the test's. */
export class ClusterNode {
  nodeId = "";
  url = "";
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  #commands = 0;

  constructor(config: NodeConfig) {
    this.#child = fork(SCRIPT, { env: { ...process.env, NODE_CONFIG: JSON.stringify(config) }, stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.#child.on("message", (reply: Reply) => this.#settle(reply));
    this.#child.on("exit", () => this.#failAll());
  }

  async start(): Promise<this> {
    const { nodeId, url } = await this.do("start");
    this.nodeId = nodeId;
    this.url = url;
    return this;
  }

  do<C extends keyof NodeCommands>(command: C, ...args: Parameters<NodeCommands[C]>): ReturnType<NodeCommands[C]> {
    const id = ++this.#commands;
    const result = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    this.#child.send({ id, command, args });
    return result as ReturnType<NodeCommands[C]>;
  }

  signal(name: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, "exit");
    this.signal("SIGKILL");
    await exit;
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

/** Nodes on one fresh database; all of them are killed at the end. */
export class Cluster implements AsyncDisposable {
  readonly #database: TestDatabase;
  readonly #nodes: ClusterNode[] = [];

  private constructor(database: TestDatabase) {
    this.#database = database;
  }

  static async open(): Promise<Cluster> {
    return new Cluster(await createDatabase());
  }

  /** A process that has not started its host yet. */
  prepare(mesh: object = {}): ClusterNode {
    const node = new ClusterNode({ name: `node-${this.#nodes.length + 1}`, database: this.#database.url, mesh });
    this.#nodes.push(node);
    return node;
  }

  /** Started nodes that know each other. */
  async nodes(count: number, mesh: object = {}): Promise<ClusterNode[]> {
    const nodes = await Promise.all(Array.from({ length: count }, () => this.prepare(mesh).start()));
    await Promise.all(nodes.map((node) => this.#meet(node, count - 1)));
    return nodes;
  }

  async #meet(node: ClusterNode, peers: number): Promise<void> {
    const end = performance.now() + 5_000;
    while ((await node.do("peers")).length < peers) if (performance.now() > end) throw new Error("the nodes did not find each other");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.kill()));
    await this.#database.drop();
  }
}
