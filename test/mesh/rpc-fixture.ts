import { createServer, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage, type Server } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { CallOptions } from "#mesh/contract/mesh-client.js";
import type { Class } from "#mesh/contract/descriptor.js";
import type { HostEnv, Scope, ScopedContext } from "#mesh/contract/registration.js";
import { createCaller, type MeshCaller } from "#mesh/mesh/call.js";
import type { Candidate, NodeDirectory } from "#mesh/mesh/directory.js";
import { createErrorReviver } from "#mesh/mesh/error-revival.js";
import { createRpcClient, type RpcClientOptions } from "#mesh/mesh/rpc-client.js";
import { EXECUTE_ACTION, type ExecuteRequest } from "#mesh/mesh/rpc-desk.js";
import { createRpcServer, type RpcServer, type RpcServerOptions } from "#mesh/mesh/rpc-server.js";
import type { RpcTransport } from "#mesh/mesh/rpc-transport.js";
import { createLogger } from "#mesh/logger.js";
import { TimerWheel } from "#mesh/pipeline/timer-wheel.js";
import { YoungRuns } from "#mesh/pipeline/young-runs.js";
import { until } from "../support/wait.js";
import { TestActions, TestDispatcher } from "./call-fixture.js";

export const TOKEN = "a-shared-token";
export const PATH = "/__chimpbase/mesh/rpc";

/** Whether nodes offer wires that do not say so themselves. Set before the tests of a file, by one that runs them once more. */
export const fixtureDefaults = { wire: false };

export interface NodeOptions {
  /** It takes wires, and says so. */
  readonly wire?: boolean;
  readonly nodeId?: string;
  readonly server?: Partial<RpcServerOptions>;
  readonly client?: Partial<RpcClientOptions>;
  readonly errors?: readonly Class<Error>[];
  readonly tokens?: readonly string[];
  readonly rpcAuth?: "token" | "signed";
  readonly databaseNow?: () => number;
}

/** A node with RPC on both sides, on a plain HTTP server, that knows the nodes it is told of. */
export class RpcNode {
  readonly nodeId: string;
  readonly actions = new TestActions();
  readonly dispatcher = new TestDispatcher();
  readonly wheel = new TimerWheel();
  readonly suspected: string[] = [];
  readonly executed: string[] = [];
  readonly logs: string[] = [];
  readonly caller: MeshCaller;
  readonly transport: RpcTransport;
  readonly rpcAuth: "token" | "signed";
  readonly wire: boolean;
  readonly tokens: readonly string[];
  draining = false;
  /** Requests that have come by POST. */
  posted = 0;
  /** Upgrades that have been asked for, and the sockets of those that are open. */
  upgrades = 0;
  readonly wires = new Set<Duplex>();
  #peers: Candidate[] = [];
  readonly #server: Server;
  readonly server: RpcServer;

  private constructor({ wire = fixtureDefaults.wire, nodeId = "node", server, client, errors = [], tokens = [TOKEN], rpcAuth = "token", databaseNow = Date.now }: NodeOptions) {
    this.nodeId = nodeId;
    this.rpcAuth = rpcAuth;
    this.wire = wire;
    this.tokens = tokens;
    const { wheel, dispatcher, actions: local } = this;
    const rpc = createRpcServer({ nodeId, rpcPath: PATH, tokens, local, dispatcher, wheel, young: new YoungRuns(), rpcAuth, databaseNow, advertisedUrl: () => this.address.advertisedUrl, defaultTimeoutMs: 5000, refuses: () => this.draining, ...server });
    const env = {
      dispatcher,
      log: createLogger({ write: (line) => void this.logs.push(line) }),
      action: async (name: string, args: unknown, scope: Scope) => {
        this.executed.push(name);
        if (name === EXECUTE_ACTION) return rpc.execute(dispatcher.context(scope), args as ExecuteRequest);
        throw new Error(`no host action ${name}`);
      },
    } as unknown as HostEnv;
    this.server = rpc;
    this.#server = createServer((request, response) => {
      this.posted++;
      void (async () => {
        if (!(await rpc.handle(request, response, env))) response.writeHead(404).end("not here");
      })();
    });
    if (wire) this.#server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      this.upgrades++;
      this.wires.add(socket);
      socket.once("close", () => this.wires.delete(socket));
      if (!rpc.upgrade(request, socket, head, env)) socket.destroy();
    });
    const directory: NodeDirectory = {
      candidates: () => this.#candidates(),
      declared: () => undefined,
      candidate: (id) => this.#peers.find((peer) => peer.nodeId === id),
      suspect: (id) => void this.suspected.push(id),
    };
    this.transport = createRpcClient({ nodeId, tokens, rpcAuth, databaseNow, suspect: (id) => directory.suspect(id), revive: createErrorReviver(errors), ...client });
    this.caller = createCaller({ nodeId, dispatcher, local, directory, transport: this.transport, wheel, young: new YoungRuns(), middleware: [], defaults: { strategy: "local-first", timeoutMs: 5000, retries: 0 } });
    dispatcher.call = (ctx, name, args, options) => this.caller.call(ctx, name, args, options);
  }

  static async start(options: NodeOptions = {}): Promise<RpcNode> {
    const node = new RpcNode(options);
    await new Promise<void>((resolve) => node.#server.listen(0, "127.0.0.1", resolve));
    return node;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** This node, as others know it. */
  get address(): Candidate {
    return { nodeId: this.nodeId, advertisedUrl: `http://127.0.0.1:${this.port}`, rpcPath: PATH, signed: this.rpcAuth === "signed", wire: this.wire, cpuLoad: 0 };
  }

  /** From here on, `peers` serve every action that this node does not. */
  knows(...peers: Candidate[]): this {
    this.#peers.push(...peers);
    return this;
  }

  forgets(nodeId: string): this {
    this.#peers = this.#peers.filter((peer) => peer.nodeId !== nodeId);
    return this;
  }

  call(name: string, args?: unknown, options?: CallOptions, scope?: Partial<Scope>): Promise<unknown> {
    return this.caller.call(this.context(scope), name, args, options);
  }

  context(scope?: Partial<Scope>): ScopedContext {
    return this.dispatcher.context(this.dispatcher.rootScope(scope));
  }

  #candidates(): readonly Candidate[] {
    const healthy = this.#peers.filter(({ nodeId }) => !this.suspected.includes(nodeId));
    return healthy.length > 0 ? healthy : this.#peers;
  }

  /** Takes the tokens of the other node. */
  accepts({ rpcAuth, tokens }: RpcNode): boolean {
    return this.rpcAuth === "token" && rpcAuth === "token" && tokens[0] !== undefined && this.tokens.includes(tokens[0]);
  }

  /** Resolves when calls from here to `peer` go by wire. */
  async wireTo(peer: RpcNode): Promise<void> {
    await until(async () => {
      const { posted } = peer;
      await this.call("v1.nobody.serves", {}, { nodeId: peer.nodeId }).catch(() => undefined);
      return peer.posted === posted;
    });
  }

  /** As a killed process would: no goodbye to anybody. */
  cut(): void {
    this.#server.closeAllConnections();
    for (const wire of this.wires) wire.destroy();
    this.#server.close();
  }

  async close(): Promise<void> {
    await this.transport.close();
    this.server.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    this.wheel.close();
  }
}

export interface RawReply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

export interface PostOptions {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string | string[]>;
  readonly token?: string | null;
}

/** One request over a connection of its own. A string body is sent as it is. */
export function post(node: { readonly port: number }, body: unknown, options: PostOptions = {}): Promise<RawReply> {
  const { method = "POST", path = PATH, token = TOKEN } = options;
  const headers = { "content-type": "application/json", ...(token === null ? {} : { "x-chimpbase-mesh-token": token }), ...options.headers };
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: "127.0.0.1", port: node.port, method, path, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk)).on("error", reject).on("end", () => {
        resolve({ status: response.statusCode!, headers: response.headers, text, json: parse(text) });
      });
    });
    request.on("error", reject);
    request.end(typeof body === "string" ? body : JSON.stringify(body));
  });
}

function parse(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** A bare connection, for what no HTTP client would send. */
export class RawConnection {
  received = "";
  closed = false;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8").on("data", (text: string) => (this.received += text));
    socket.on("error", () => undefined).on("close", () => (this.closed = true));
  }

  static async to(node: { readonly port: number }): Promise<RawConnection> {
    const socket = connect(node.port, "127.0.0.1");
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new RawConnection(socket);
  }

  send(text: string): this {
    this.#socket.write(text);
    return this;
  }

  sendBytes(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** Sends no more, and still reads. */
  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
