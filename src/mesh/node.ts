import { setTimeout as pause } from "node:timers/promises";
import { MeshConfigurationError } from "../errors.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { defaultAdvertisedUrl, fillBoundPort, isResolvable, reachProblem } from "./advertised-url.js";
import { readDigest } from "./digest.js";
import { Discovery } from "./discovery.js";
import { isAllowedHere } from "./guarded-lookup.js";
import { INFO_EVENTS, INFO_PATTERN, readHint } from "./info-events.js";
import { notRunning } from "./not-running.js";
import { Presence } from "./presence.js";
import { Registry } from "./registry.js";
import { ServiceSet } from "./service-set.js";
import { within } from "../pipeline/time-limit.js";
import { openRpc } from "./rpc-ends.js";
import type { ResolvedMeshOptions } from "./options.js";
import type { NodeServices } from "./services.js";
import type { RpcServer } from "./rpc-server.js";
import type { Reachability } from "./wait-for.js";
import type { RpcEnds } from "./rpc-ends.js";
import type { CallOptions } from "../contract/mesh-client.js";
import type { IncomingEvent } from "../contract/messaging.js";
import type { HealthReport, HostEnv, ScopedContext } from "../contract/registration.js";

/** Bounds of the time that one statement on the registry may take, which is one heartbeat otherwise. */
const QUERY_LIMIT_MS = { least: 1_000, most: 10_000 };
/** How long a change is given to reach the peers: until its event comes back here, and then a read's time. */
const SETTLE = { mostMs: 500, readMs: 100 };
/** How long a node that has left waits for its callers to close their connections. */
const CALLERS_LIMIT_MS = 1_000;
/** For all `@Stopped` hooks, and what is being registered. */
const STOPPED_LIMIT_MS = 8_000;

/** What exists between `ready` and `close`. */
export interface RunningMesh {
  readonly env: HostEnv;
  readonly registry: Registry;
  readonly discovery: Discovery;
  readonly presence: Presence;
  readonly rpc: RpcEnds;
  readonly stopListening: () => void;
}

/** One node of the mesh through its life, in the order of `LifecycleRegistration`. */
export class MeshNode implements Reachability {
  readonly options: ResolvedMeshOptions;
  readonly services: NodeServices;
  readonly closing = new Cancellation();
  readonly #set: ServiceSet;
  #running: RunningMesh | null = null;
  #server: RpcServer | null = null;
  #announced = false;
  #ended = false;
  /** Peers have been told, or there is nobody to tell: calls that come in now are late. */
  #refuses = false;
  #echoed: ((rev: number) => void) | null = null;

  constructor(options: ResolvedMeshOptions, services: NodeServices) {
    this.options = options;
    this.services = services;
    this.#set = new ServiceSet(services);
  }

  /** Throws `MeshError` with code `MESH_NOT_RUNNING` before start and after stop. */
  running(): RunningMesh {
    if (this.#running === null) throw notRunning(this.#ended);
    return this.#running;
  }

  /** Outlives `close`: the HTTP server takes requests a little longer, and they must be told that the node drains. */
  get server(): RpcServer | null {
    return this.#server;
  }

  call(ctx: ScopedContext, name: string, args: unknown, options: CallOptions | undefined): Promise<unknown> {
    if (this.#running === null) return Promise.reject(notRunning(this.#ended));
    return this.#running.rpc.caller.call(ctx, name, args, options);
  }

  serves(name: string): boolean {
    return this.services.serves(name) || this.#running?.discovery.serves(name) === true;
  }

  onChange(listener: () => void): () => void {
    return this.running().discovery.onChange(listener);
  }

  /** Peers are known, and the services have started: handlers may run. */
  async ready(env: HostEnv): Promise<void> {
    if (this.#running !== null || this.#ended) throw new MeshConfigurationError("one chimpbaseMesh() belongs to one host: make another for another host");
    this.#running = this.#open(env);
    this.#server = this.#running.rpc.server;
    await this.#running.discovery.start();
    env.health("mesh", () => this.#health());
    await this.#set.startAll(env);
  }

  /** The node can be reached: it writes its row and announces itself. */
  async listening(env: HostEnv): Promise<void> {
    const advertisedUrl = this.#advertisedUrl(env);
    this.#announced = true;
    await this.running().presence.start(advertisedUrl);
  }

  /** Peers choose others from here on. Until they know, their calls are served; then those that come late are refused. */
  async drain(env: HostEnv): Promise<void> {
    if (this.#running?.env !== env) return;
    try {
      if (this.#announced) await this.#tellAndSettle(() => this.running().presence.drain());
    } catch (error) {
      env.log.warn("mesh node could not mark itself draining", { err: error });
    }
    this.#refuses = true;
  }

  /** The row goes first, so that nobody waits for hooks; then the services stop, and connections close. Idempotent. */
  async close(env: HostEnv): Promise<void> {
    const running = this.#running;
    // A host that was refused this node must not take it from the host that has it.
    if (running === null || running.env !== env || this.#ended) return;
    // Also where the start failed, and nothing was drained.
    this.#ended = this.#refuses = true;
    this.closing.abort("the mesh is stopping");
    if (this.#announced) await running.presence.leave();
    const { server } = running.rpc;
    // The host's drain does not know of requests on wires that wait for their turn, or whose answers are being written.
    await within(Promise.all([server.idle(), server.callersGone()]), CALLERS_LIMIT_MS);
    if ((await within(this.#set.stopAll(env), STOPPED_LIMIT_MS)) === null) {
      env.log.warn(`mesh services have not stopped within ${STOPPED_LIMIT_MS}ms: what their stopped hooks still do is left behind`);
    }
    running.stopListening();
    await running.discovery.stop();
    await running.rpc.close();
    this.#running = null;
  }

  /** Adds services: all or none. */
  async register(sources: Parameters<NodeServices["prepare"]>[0]): Promise<void> {
    const { env, presence, discovery } = this.#changeable();
    // Before the node is announced its first row will say it all.
    await this.#set.register(sources, env, async () => (this.#announced ? presence.publish() : undefined));
    discovery.notify();
  }

  /** Takes services off: peers stop choosing them, what is under way ends, then they go. */
  async unregister(ids: readonly string[]): Promise<void> {
    const { env, presence, discovery } = this.#changeable();
    await this.#set.unregister(ids, env, () => this.#tellAndSettle(() => presence.publish()));
    discovery.notify();
  }

  /** Deletes rows of nodes that have been silent for `gcAfterMs`. */
  async sweep(): Promise<void> {
    const { env, registry } = this.running();
    const swept = await registry.sweep(this.options.gcAfterMs);
    if (swept > 0) env.log.info("mesh registry swept", { rows: swept });
  }

  #changeable(): RunningMesh {
    if (this.#ended) throw notRunning(true);
    return this.running();
  }

  #open(env: HostEnv): RunningMesh {
    const { transport, rpcPath, rpcAuth, heartbeatMs, offlineAfterMs, meta, allowedPeers: allowed } = this.options;
    const calls = transport === "http";
    const limitMs = Math.min(QUERY_LIMIT_MS.most, Math.max(QUERY_LIMIT_MS.least, heartbeatMs));
    const registry = new Registry(env.storage, limitMs);
    const log = env.log.child({ component: "mesh" });
    const { nodeId, outbox } = env;
    const discovery = new Discovery({ registry, nodeId, heartbeatMs, offlineAfterMs, calls, allowed, log, onGone: (peer) => rpc.drop(peer), onDigest: (lines) => presence.tell(lines) });
    const presence = new Presence({ registry, outbox, nodeId, heartbeatMs, transport, rpcPath, rpcAuth, meta, log, services: () => this.services.infos() });
    const rpc = openRpc({
      env, options: this.options, local: this.services, directory: discovery,
      cpuLoad: () => presence.cpuLoad,
      refuses: () => this.#refuses,
      databaseNow: () => discovery.databaseNow(),
      advertisedUrl: () => this.#ownUrl(env),
    });
    const stopListening = env.bus.subscribe(INFO_PATTERN, (event) => this.#onInfo(event, discovery));
    return { env, registry, discovery, presence, rpc, stopListening };
  }

  #onInfo(event: IncomingEvent, discovery: Discovery): void {
    if (event.name === INFO_EVENTS.resync) return discovery.refresh();
    const hint = readHint(event);
    if (hint === null) return;
    if (hint.nodeId === this.#running?.env.nodeId) return this.#echoed?.(hint.rev ?? 0);
    const digest = readDigest(event);
    if (digest === null) discovery.hint(hint);
    else discovery.digest(digest);
  }

  #advertisedUrl(env: HostEnv): string | null {
    if (this.options.transport === "local-only") return null;
    const { url: boundUrl, address } = env;
    const url = this.#ownUrl(env);
    if (url === null || boundUrl === null || address === null) {
      throw new MeshConfigurationError('mesh transport "http" needs the HTTP server, but the host has server: false; give the host a server or the mesh transport: "local-only"');
    }
    const problem = reachProblem(url, { url: boundUrl, address });
    if (problem !== null) env.log.warn(problem, { advertisedUrl: url });
    void this.#warnUnlessResolvable(url, env);
    void this.#warnUnlessAllowed(url, env);
    return url;
  }

  /** Null until the HTTP server is bound. */
  #ownUrl({ url, address }: HostEnv): string | null {
    if (url === null || address === null) return null;
    const given = this.options.advertisedUrl;
    return given === null ? defaultAdvertisedUrl({ url, address }) : fillBoundPort(given, url);
  }

  /** Beside the start: a name server that is slow to say no must not hold it up. */
  async #warnUnlessResolvable(url: string, env: HostEnv): Promise<void> {
    if ((await isResolvable(url)) || this.#ended) return;
    env.log.warn("mesh node advertises a name that does not resolve on this machine: where it does not on the others either, peers cannot call it; set advertisedUrl or HOSTNAME", { advertisedUrl: url });
  }

  async #warnUnlessAllowed(url: string, env: HostEnv): Promise<void> {
    const allowed = this.options.allowedPeers;
    if (allowed === null || (await isAllowedHere(allowed, url)) || this.#ended) return;
    env.log.warn("mesh node advertises an address that its own allowedPeers does not allow: peers with the same list do not call it", { advertisedUrl: url });
  }

  #health(): HealthReport {
    const running = this.#running;
    if (running === null) return { status: "failing" };
    const failing = running.discovery.failing || running.presence.failing;
    return { status: failing ? "degraded" : "ok", peers: running.discovery.peers().length };
  }

  /** Resolves once peers have had the time to act on what `tell` has written. */
  async #tellAndSettle(tell: () => Promise<void>): Promise<void> {
    const { presence, discovery } = this.running();
    const echo = new Promise<void>((resolve) => (this.#echoed = (rev) => rev >= presence.rev && resolve()));
    try {
      await tell();
      if (discovery.peers().length === 0) return;
      await within(echo, SETTLE.mostMs);
      await pause(SETTLE.readMs);
    } finally {
      this.#echoed = null;
    }
  }
}
