import { createDatabase } from "../support/database.js";
import type { TestDatabase } from "../support/database.js";
import { ScriptProcess } from "./process.js";
import type { NodeCommands, NodeConfig } from "./protocol.js";

const SCRIPT = new URL("./node.js", import.meta.url);

/** A node in a process of its own. */
export class ClusterNode extends ScriptProcess<NodeCommands> {
  nodeId = "";
  url = "";

  constructor(config: NodeConfig) {
    super(SCRIPT, config);
  }

  async start(): Promise<this> {
    const { nodeId, url } = await this.do("start");
    this.nodeId = nodeId;
    this.url = url;
    return this;
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

  get url(): string {
    return this.#database.url;
  }

  /** A process that has not started its host yet. */
  prepare(mesh: object = {}, config: Partial<NodeConfig> = {}): ClusterNode {
    const node = new ClusterNode({ name: `node-${this.#nodes.length + 1}`, database: this.#database.url, mesh, ...config });
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
