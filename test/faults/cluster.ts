import { randomInt } from "node:crypto";
import { createServer } from "node:net";
import { ScriptProcess } from "../cluster/process.js";
import { until } from "../support/wait.js";
import { Link } from "./link.js";
import type { History } from "./history.js";
import type { FaultyPostgres } from "./postgres.js";
import type { Load, NodeCommands, NodeConfig, Report } from "./protocol.js";

/** Of the clocks of nodes that run: ten minutes ahead, behind, right. An heir gets that of the one before it. */
const CLOCKS_MS = [600_000, -600_000, 0];
/** Below those that systems give to sockets that ask for none, with room above for all nodes of a run. */
const OWN_PORTS = [20_000, 32_000] as const;
const SCRIPT = new URL("./node.js", import.meta.url);

/** A node in its own process. Everyone reaches it over `http`, and it reaches the database over `postgres`. */
export class FaultNode extends ScriptProcess<NodeCommands> {
  nodeId = "";
  readonly name: string;
  readonly clockMs: number;
  #ending = false;

  constructor(config: NodeConfig, readonly http: Link, readonly postgres: Link, history: History, onCrash: (name: string) => void) {
    super(SCRIPT, config, { execArgv: ["--expose-gc"] }, ({ entries }: Report) => history.add(...entries));
    this.name = config.name;
    this.clockMs = config.clockMs;
    void this.exited.then(() => this.#ending || onCrash(this.name));
  }

  override kill(): Promise<void> {
    this.#ending = true;
    return super.kill();
  }

  /** Stops, or waits for the end of a stop by SIGTERM; then the process must end by itself. */
  async leave(): Promise<void> {
    this.#ending = true;
    await this.do("leave");
  }

  async start(): Promise<this> {
    this.nodeId = (await this.do("start")).nodeId;
    return this;
  }

  async closeLinks(): Promise<void> {
    await Promise.all([this.http.close(), this.postgres.close()]);
  }
}

/** Nodes of one mesh, on a database of their own. */
export class FaultCluster {
  readonly #postgres: FaultyPostgres;
  readonly #databaseUrl: string;
  readonly #rpcAuth: NodeConfig["rpcAuth"];
  readonly #history: History;
  readonly #onCrash: (name: string) => void;
  readonly #all: FaultNode[] = [];
  #lastPort = randomInt(...OWN_PORTS);

  /** `onCrash` is told of each node whose process ends without having been told to. */
  constructor(postgres: FaultyPostgres, databaseUrl: string, rpcAuth: NodeConfig["rpcAuth"], history: History, onCrash: (name: string) => void) {
    this.#onCrash = onCrash;
    this.#postgres = postgres;
    this.#rpcAuth = rpcAuth;
    this.#databaseUrl = databaseUrl;
    this.#history = history;
  }

  /** Those whose process runs. */
  get nodes(): FaultNode[] {
    return this.#all.filter(({ running }) => running);
  }

  /** All that have ever started. */
  get started(): readonly FaultNode[] {
    return this.#all;
  }

  /** Of all nodes that have ever started, by node id. */
  get names(): Map<string, string> {
    return new Map(this.#all.map(({ nodeId, name }) => [nodeId, name]));
  }

  async add(more: Partial<NodeConfig> = {}): Promise<FaultNode> {
    const port = await this.#freePort();
    const http = await Link.to(() => port);
    const postgres = await Link.to(() => this.#postgres.port);
    const config = {
      ...more,
      name: `n${this.#all.length + 1}`,
      database: Object.assign(new URL(this.#databaseUrl), { port: String(postgres.port) }).href,
      port,
      advertisedUrl: `http://127.0.0.1:${http.port}`,
      rpcAuth: this.#rpcAuth,
      clockMs: this.#freeClock(),
    };
    const node = new FaultNode(config, http, postgres, this.#history, this.#onCrash);
    this.#all.push(node);
    return node.start();
  }

  /** Told to all before the node has it, so it must be none that the system gives to anybody else meanwhile. */
  async #freePort(): Promise<number> {
    const port = ++this.#lastPort;
    return (await isFree(port)) ? port : this.#freePort();
  }

  #freeClock(): number {
    const taken = this.nodes.map(({ clockMs }) => clockMs);
    return CLOCKS_MS.find((clockMs) => !taken.includes(clockMs)) ?? 0;
  }

  /** Nodes that know each other. */
  async start(count: number, more: Partial<NodeConfig> = {}): Promise<FaultNode[]> {
    const starting: Promise<FaultNode>[] = [];
    for (let n = 0; n < count; n++) starting.push(this.add(more));
    const nodes = await Promise.all(starting);
    await until(() => this.agrees(), { timeoutMs: 10_000, message: "the nodes have found each other" });
    return nodes;
  }

  /** Every node knows all the others, and nobody else. */
  async agrees(nodes = this.nodes): Promise<boolean> {
    const views = await Promise.all(nodes.map(async (node) => [node.nodeId, ...(await node.do("peers"))].sort().join()));
    const truth = nodes.map(({ nodeId }) => nodeId).sort().join();
    return views.every((view) => view === truth);
  }

  async load(load: Load, nodes = this.nodes): Promise<void> {
    await Promise.all(nodes.map((node) => node.do("load", load)));
  }

  /** Ends the load of all nodes; resolves when what was under way has ended. */
  async quiet(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.do("quiet")));
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.map((node) => node.kill()));
    await Promise.all(this.#all.map((node) => node.closeLinks()));
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const free = await new Promise<boolean>((resolve) => server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true)));
  if (free) await new Promise((resolve) => server.close(resolve));
  return free;
}
