import { now } from "../pipeline/deadline.js";
import { ActionIndex } from "./action-index.js";
import type { AllowedPeers } from "./allowed-peers.js";
import { Hearing } from "./hearing.js";
import { KnownPeer } from "./peer.js";
import { digestLine, type Digest, type DigestLine } from "./digest.js";
import { Suspicion } from "./suspicion.js";
import type { Offer } from "./action-index.js";
import type { DeclaredPolicy } from "./declared-policy.js";
import type { Candidate, NodeDirectory } from "./directory.js";
import type { NodeRow, RegistryRead, ServicesRow } from "./registry.js";
import type { Logger } from "../logger.js";
import type { Peer } from "../contract/mesh-client.js";

const LONGEST_SHOWN = 200;
/** A peer that has died is dropped so soon that to try it before would be a waste. */
const SOON_MS = 2_000;
/** What reading the row of a peer that has expired may take. */
const DROP_MS = 250;

export interface PeerCacheOptions {
  /** This node: never its own peer. */
  readonly nodeId: string;
  readonly heartbeatMs: number;
  readonly offlineAfterMs: number;
  /** False for a local-only mesh, which sees peers but calls none. */
  readonly calls: boolean;
  /** Null: every peer may be called. */
  readonly allowed: AllowedPeers | null;
  readonly log: Logger;
  /** What can be called has changed. */
  readonly onChange: () => void;
  readonly onGone: (nodeId: string) => void;
}

/**
 * The live peers, as of the last successful read. Ages are taken on the database's clock within one read; pauses are
 * measured on the monotonic clock. A read that fails changes nothing.
 */
export class PeerCache implements NodeDirectory {
  readonly #options: PeerCacheOptions;
  readonly #peers = new Map<string, KnownPeer>();
  readonly #hearing: Hearing;
  readonly #suspicion: Suspicion;
  readonly #index: ActionIndex;
  #databaseClock = { nowMs: 0, readAt: 0 };
  #list: readonly Peer[] | null = null;

  constructor(options: PeerCacheOptions) {
    this.#options = options;
    this.#hearing = new Hearing(options);
    // Its last heartbeat may be as young as the failure, whatever has been heard of it.
    this.#suspicion = new Suspicion(options.offlineAfterMs <= SOON_MS ? options.offlineAfterMs + DROP_MS : 0);
    this.#index = new ActionIndex(this.#suspicion);
  }

  candidates(action: string): readonly Candidate[] {
    return this.#index.candidates(action);
  }

  candidate(nodeId: string, action: string): Candidate | undefined {
    const offer = this.#options.calls ? this.#peers.get(nodeId)?.offer : null;
    return offer?.names.has(action) === true ? offer.candidate : undefined;
  }

  suspect(nodeId: string): boolean {
    return this.#peers.has(nodeId) && this.#suspicion.mark(nodeId, this.databaseNow());
  }

  suspects(nodeId: string): boolean {
    return this.#suspicion.avoids(nodeId);
  }

  declared(action: string): DeclaredPolicy | undefined {
    const [first] = this.#index.candidates(action);
    return first === undefined ? undefined : this.#peers.get(first.nodeId)?.declared(action);
  }

  /** Some peer can be called for the service or action. */
  serves(name: string): boolean {
    return this.#index.has(name);
  }

  peers(): readonly Peer[] {
    return (this.#list ??= Object.freeze([...this.#peers.values()].map((peer) => peer.view)));
  }

  rev(nodeId: string): number | null | undefined {
    return this.#peers.get(nodeId)?.rev;
  }

  /** Nodes of the read whose services must be read too. */
  unread(read: RegistryRead): readonly string[] {
    return read.rows
      .filter((row) => this.#isPeer(row) && row.servicesHash !== null && this.#peers.get(row.nodeId)?.servicesHash !== row.servicesHash)
      .map((row) => row.nodeId);
  }

  /**
   * Takes over a read of all live rows, or of those of `nodeIds` and this node's own. A row that is gone without a leave
   * counts as silent: a live node writes it again.
   */
  applyAll(read: RegistryRead, services: ReadonlyMap<string, ServicesRow>, nodeIds: Iterable<string> = this.#peers.keys()): void {
    this.#hearing.note(read);
    this.#takeRows(read, services);
    for (const nodeId of nodeIds) {
      const peer = this.#peers.get(nodeId);
      if (peer !== undefined && this.#expiryOf(peer) <= read.nowMs) this.#drop(nodeId);
    }
  }

  /**
   * Takes over the heartbeats of those peers whose rows are as they are known here. Returns the nodes whose rows must be
   * read: a digest prolongs, and neither adds a peer, nor changes one, nor takes one away.
   */
  applyDigest({ nowMs, lines }: Digest): readonly string[] {
    this.#hearing.note({ nowMs, rows: lines });
    if (nowMs > this.databaseNow()) this.#databaseClock = { nowMs, readAt: now() };
    this.#list = null;
    return lines.filter((line) => this.#isNews(line, nowMs)).map(({ nodeId }) => nodeId);
  }

  #isNews({ nodeId, lastHeartbeatMs, stamp, cpuLoad }: DigestLine, nowMs: number): boolean {
    if (nodeId === this.#options.nodeId) return false;
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return nowMs - lastHeartbeatMs < this.#options.offlineAfterMs;
    if (peer.stamp !== stamp) return true;
    peer.beat(lastHeartbeatMs, cpuLoad, nowMs);
    this.#suspicion.heard(nodeId, lastHeartbeatMs);
    return false;
  }

  /** A read has failed: silence says nothing about the peers until one succeeds. */
  noteFailure(): void {
    this.#hearing.noteFailure();
  }

  /** Takes over a read of just these nodes: a row that is gone was deleted, and one that is late is left to the next full read. */
  applyNodes(nodeIds: readonly string[], read: RegistryRead, services: ReadonlyMap<string, ServicesRow>): void {
    this.#takeRows(read, services);
    const present = new Set(read.rows.map((row) => row.nodeId));
    for (const nodeId of nodeIds) if (!present.has(nodeId)) this.#drop(nodeId);
  }

  /** The database's clock, carried on by the monotonic one since the last read. */
  databaseNow(): number {
    return this.#databaseClock.nowMs + (now() - this.#databaseClock.readAt);
  }

  /** Time until the next peer would expire, were it never heard of again; Infinity without peers. */
  untilNextExpiry(): number {
    let soonest = Infinity;
    for (const peer of this.#peers.values()) soonest = Math.min(soonest, this.#expiryOf(peer));
    return Math.max(0, soonest - this.databaseNow());
  }

  /** What to tell the others of a read that was taken over. */
  linesOf(read: RegistryRead): readonly DigestLine[] {
    return read.rows.map((row) => this.#peers.get(row.nodeId)?.line ?? digestLine(row));
  }

  /** Peers that are gone unless their rows say otherwise. */
  expired(): readonly string[] {
    const nowMs = this.databaseNow();
    return [...this.#peers].filter(([, peer]) => this.#expiryOf(peer) <= nowMs).map(([nodeId]) => nodeId);
  }

  /** On the database's clock. */
  #expiryOf(peer: KnownPeer): number {
    return Math.max(peer.lastHeartbeatMs, this.#hearing.deafUntilMs) + this.#options.offlineAfterMs;
  }

  /** All but those that are too old. */
  #takeRows(read: RegistryRead, services: ReadonlyMap<string, ServicesRow>): void {
    this.#databaseClock = { nowMs: read.nowMs, readAt: now() };
    for (const row of read.rows) {
      const isOld = read.nowMs - row.lastHeartbeatMs >= this.#options.offlineAfterMs;
      if (this.#isPeer(row) && !isOld) this.#takeRow(row, services.get(row.nodeId));
    }
  }

  #takeRow(row: NodeRow, services: ServicesRow | undefined): void {
    const known = this.#peers.get(row.nodeId);
    if (known === undefined) return this.#add(row, services);
    const before = known.offer;
    known.update(row, services);
    this.#suspicion.heard(row.nodeId, row.lastHeartbeatMs);
    this.#list = null;
    this.#reindex(row.nodeId, before, known.offer);
  }

  #add(row: NodeRow, services: ServicesRow | undefined): void {
    // Deleted or replaced between the two reads: the next one will tell.
    if (services === undefined && row.servicesHash !== null) return;
    const peer = new KnownPeer(row, services, this.#warn, this.#options.allowed);
    this.#peers.set(row.nodeId, peer);
    this.#list = null;
    this.#options.log.info("mesh peer found", { peer: shown(row.nodeId), url: peer.offer?.candidate.advertisedUrl ?? null });
    this.#reindex(row.nodeId, null, peer.offer);
  }

  #drop(nodeId: string): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    this.#peers.delete(nodeId);
    this.#suspicion.forget(nodeId);
    this.#list = null;
    this.#options.log.info("mesh peer gone", { peer: shown(nodeId) });
    this.#reindex(nodeId, peer.offer, null);
    this.#options.onGone(nodeId);
  }

  #reindex(nodeId: string, before: Offer | null, after: Offer | null): void {
    if (!this.#options.calls) return;
    if (before?.candidate === after?.candidate && before?.names === after?.names) return;
    this.#index.replace(nodeId, before, after);
    this.#options.onChange();
  }

  #isPeer(row: NodeRow): boolean {
    return row.nodeId !== this.#options.nodeId;
  }

  readonly #warn = (peer: string, problem: string): void => this.#options.log.warn(`mesh peer: ${problem}`, { peer: shown(peer) });
}

/** An id may be as long as whoever wrote the row likes. */
const shown = (nodeId: string): string => nodeId.slice(0, LONGEST_SHOWN);
