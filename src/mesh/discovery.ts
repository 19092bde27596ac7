import { setTimeout as pause } from "node:timers/promises";
import type { AllowedPeers } from "./allowed-peers.js";
import { isTellable, type Digest, type DigestLine } from "./digest.js";
import { PeerCache } from "./peer-cache.js";
import { now } from "../pipeline/deadline.js";
import { within } from "../pipeline/time-limit.js";
import type { DeclaredPolicy } from "./declared-policy.js";
import type { Candidate, NodeDirectory } from "./directory.js";
import type { RegistryRead, Registry, ServicesRow } from "./registry.js";
import type { Logger } from "../logger.js";
import type { Peer } from "../contract/mesh-client.js";

/** Longest pause before a failed read is tried again. */
const RETRY_MS = 1_000;
/** Hints that come in while a read is under way are answered by one read after this pause: forged ones cannot keep the database busy. */
const COALESCE_MS = 20;
/** More nodes than this in one go are read with all the others. */
const MOST_HINTED = 64;
const STOP_LIMIT_MS = 1_000;

export interface DiscoveryOptions {
  readonly registry: Registry;
  readonly nodeId: string;
  readonly heartbeatMs: number;
  readonly offlineAfterMs: number;
  /** False for a local-only mesh. */
  readonly calls: boolean;
  /** Null: every peer may be called. */
  readonly allowed: AllowedPeers | null;
  readonly log: Logger;
  /** A peer has left the cache. */
  readonly onGone: (nodeId: string) => void;
  /** This node has read all rows, and it is its turn to tell the others. */
  readonly onDigest: (lines: readonly DigestLine[]) => void;
}

/** What a bus event says of a node. Only a reason to look at its row. */
export interface Hint {
  readonly nodeId: string;
  /** The node's own count of changes; null where the event gives none. */
  readonly rev: number | null;
  /** A heartbeat, which changes nothing by itself. */
  readonly heartbeat: boolean;
}

/** A digest that is older when it comes was held up, or the database's clock has been set back. */
const LATE_MS = 2_000;

/**
 * Keeps the peer cache true to the registry. One node, the lowest id where none does, reads all of it at each heartbeat,
 * and tells the others in one event what they would read, so that the cost grows with the nodes and not with their square;
 * they read all only where that event stays away, and single rows where it, or a hint, has news, or a peer would expire.
 * One read at a time.
 */
export class Discovery implements NodeDirectory {
  readonly #options: DiscoveryOptions;
  readonly #cache: PeerCache;
  readonly #listeners = new Set<() => void>();
  #wantsAll = false;
  #wanted = new Set<string>();
  #working: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;
  /** A quarter of what peers are granted beyond a heartbeat. With twice that since the last news a node takes itself for deaf. */
  readonly #graceMs: number;
  /** Monotonic. */
  #nextFullAt = 0;
  #tells = false;
  /** Who has told last, and whether its next digest is overdue. */
  #teller: string | null = null;
  #overdue = false;
  #running = false;
  #failing = false;

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    this.#graceMs = Math.min(options.heartbeatMs / 2, (options.offlineAfterMs - options.heartbeatMs) / 4);
    this.#cache = new PeerCache({ ...options, onChange: () => this.notify() });
  }

  /** Seeds the cache; rejects where the registry cannot be read. */
  async start(): Promise<void> {
    await this.#readAll();
    this.#running = true;
    this.#schedule();
    if (this.#wanted.size > 0) this.#work();
  }

  /** Resolves when the read under way has ended, or hangs; the cache stays readable. */
  async stop(): Promise<void> {
    this.#running = false;
    clearTimeout(this.#timer);
    if (this.#working !== null) await within(this.#working, STOP_LIMIT_MS);
  }

  candidates(action: string): readonly Candidate[] {
    return this.#cache.candidates(action);
  }

  candidate(nodeId: string, action: string): Candidate | undefined {
    return this.#cache.candidate(nodeId, action);
  }

  declared(action: string): DeclaredPolicy | undefined {
    return this.#cache.declared(action);
  }

  suspect(nodeId: string, drains = false): void {
    if (!this.#cache.suspect(nodeId)) return;
    if (!drains) this.#options.log.warn("mesh peer avoided after a failed call", { peer: nodeId });
    this.#want(nodeId);
  }

  peers(): readonly Peer[] {
    return this.#cache.peers();
  }

  serves(name: string): boolean {
    return this.#cache.serves(name);
  }

  /** Ms since the epoch by the database's clock, whatever this node's own says. */
  databaseNow(): number {
    return this.#cache.databaseNow();
  }

  /** The registry could not be read at the last try; peers are as it last told. */
  get failing(): boolean {
    return this.#failing;
  }

  /** Calls `listener` after each change of what can be called. Returns the removal. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Something that can be called, here or on a peer, has come or gone. */
  notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** A heartbeat of a peer that is known as it is, and under no suspicion, costs no read. */
  hint({ nodeId, rev, heartbeat }: Hint): void {
    if (nodeId === this.#options.nodeId) return;
    const oldNews = heartbeat && rev !== null && this.#cache.rev(nodeId) === rev && !this.#cache.suspects(nodeId);
    if (!oldNews) this.#want(nodeId);
  }

  /** What another node has read. */
  digest(digest: Digest): void {
    if (!this.#running) return;
    if (this.#cache.databaseNow() - digest.nowMs > Math.min(LATE_MS, this.#options.heartbeatMs)) return this.refresh();
    for (const nodeId of this.#cache.applyDigest(digest)) this.#want(nodeId);
    this.#teller = digest.nodeId;
    this.#overdue = false;
    // Of two that tell, the lower id goes on.
    if (digest.nodeId < this.#options.nodeId) this.#tells = false;
    if (!this.#tells) this.#noteAll(digest.lines);
    this.#schedule();
  }

  /** Reads the whole registry as soon as can be. */
  refresh(): void {
    this.#wantsAll = true;
    this.#work();
  }

  #want(nodeId: string): void {
    this.#wanted.add(nodeId);
    if (this.#wanted.size > MOST_HINTED) {
      this.#wantsAll = true;
      this.#wanted.clear();
    }
    this.#work();
  }

  #work(): void {
    if (this.#running) this.#working ??= this.#serveWants();
  }

  async #serveWants(): Promise<void> {
    try {
      while (this.#running && (this.#wantsAll || this.#wanted.size > 0)) {
        await this.#serveOnce();
        await pause(COALESCE_MS);
      }
    } finally {
      // In the same turn as the last look at the wants: none can slip in between.
      this.#working = null;
    }
  }

  async #serveOnce(): Promise<void> {
    // While reads fail, any reason to read is one to read everything.
    const all = this.#wantsAll || this.#failing;
    const nodeIds = [...this.#wanted];
    this.#wantsAll = false;
    this.#wanted.clear();
    try {
      await (all ? this.#readAll() : this.#readNodes(nodeIds));
    } catch (error) {
      this.#noteFailure(error);
    }
    this.#schedule();
  }

  async #readAll(): Promise<void> {
    const read = await this.#options.registry.readLive(this.#options.offlineAfterMs);
    const services = await this.#readServices(read);
    this.#noteSuccess();
    this.#cache.applyAll(read, services);
    this.#tells ||= this.#isFirst(read);
    this.#noteAll(read.rows);
    if (this.#tells && this.#running && isTellable(read.rows)) this.#options.onDigest(this.#cache.linesOf(read));
  }

  async #readNodes(nodeIds: readonly string[]): Promise<void> {
    const { registry, nodeId: own } = this.#options;
    const expired = this.#cache.expired();
    // This node's own row tells whether it is the peers that are silent.
    const read = await registry.readNodes(expired.length === 0 ? nodeIds : [...nodeIds, ...expired, own]);
    const services = await this.#readServices(read);
    if (expired.length > 0) this.#cache.applyAll(read, services, expired);
    this.#cache.applyNodes(nodeIds.filter((nodeId) => !expired.includes(nodeId)), read, services);
  }

  async #readServices(read: RegistryRead): Promise<ReadonlyMap<string, ServicesRow>> {
    const nodeIds = this.#cache.unread(read);
    return nodeIds.length === 0 ? new Map() : this.#options.registry.readServices(nodeIds);
  }

  #noteSuccess(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#options.log.info("mesh registry can be read again");
  }

  #noteFailure(error: unknown): void {
    if (!this.#failing) this.#options.log.warn("mesh registry cannot be read: peers stay as they were", { err: error });
    this.#failing = true;
    this.#cache.noteFailure();
  }

  /** Nobody tells, and of those that could and whose last heartbeat is not late, this node has the lowest id. */
  #isFirst({ nowMs, rows }: RegistryRead): boolean {
    const { nodeId: own, heartbeatMs } = this.#options;
    if (this.#teller !== null && !this.#overdue) return false;
    const promptMs = heartbeatMs + this.#graceMs / 4;
    const prompt = rows.filter((row) => nowMs - row.lastHeartbeatMs <= promptMs).map(({ nodeId }) => nodeId);
    return prompt.includes(own) && !prompt.some((other) => other < own && this.#mayTell(other));
  }

  /** Foreign nodes, which write no `rev`, may know nothing of digests. */
  #mayTell(nodeId: string): boolean {
    return nodeId !== this.#teller && typeof this.#cache.rev(nodeId) === "number";
  }

  /** These nodes are known as they are now. Whose turn is next looks first, and the others not all at one moment. */
  #noteAll(nodes: readonly { readonly nodeId: string }[]): void {
    const { nodeId: own, heartbeatMs } = this.#options;
    const isNext = !nodes.some(({ nodeId }) => nodeId < own && this.#mayTell(nodeId));
    const graces = isNext ? 0.5 : 1 + Math.random() / 2;
    this.#nextFullAt = now() + heartbeatMs + (this.#tells ? 0 : graces * this.#graceMs);
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (!this.#running) return;
    const { heartbeatMs } = this.#options;
    const delayMs = this.#failing ? Math.min(heartbeatMs, RETRY_MS) : Math.min(this.#nextFullAt - now(), this.#cache.untilNextExpiry());
    this.#timer = setTimeout(() => this.#onTimer(), Math.max(COALESCE_MS, delayMs));
  }

  #onTimer(): void {
    if (now() >= this.#nextFullAt - COALESCE_MS) this.#overdue = true;
    if (this.#failing || this.#overdue) return this.refresh();
    for (const nodeId of this.#cache.expired()) this.#want(nodeId);
    if (this.#working === null) this.#schedule();
  }
}
