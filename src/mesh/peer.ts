import { parseAdvertisedUrl } from "./advertised-url.js";
import type { AllowedPeers } from "./allowed-peers.js";
import { readPolicies } from "./declared-policy.js";
import { stampOf, type DigestLine } from "./digest.js";
import { isObject } from "./json-object.js";
import { parseMetadata } from "./metadata.js";
import { isTarget } from "./rpc-signature.js";
import type { Offer } from "./action-index.js";
import type { DeclaredPolicy } from "./declared-policy.js";
import type { Candidate } from "./directory.js";
import type { PeerMetadata } from "./metadata.js";
import type { NodeRow, ServicesRow } from "./registry.js";
import type { Peer, ServiceInfo } from "../contract/mesh-client.js";

const LONGEST_NAME = 512;
const LONGEST_SHOWN = 200;
const NO_METADATA: PeerMetadata = { user: {}, rev: null, rpcPath: null, localOnly: false, draining: false, signed: false, wire: false, cpuLoad: 0 };

/** Told once per change of a row, since rows are parsed only when they change. */
export type PeerWarning = (nodeId: string, problem: string) => void;

/** Target of calls. `cpuLoad` changes in place with each heartbeat; a new URL, path, kind of authentication or transport makes a new object. */
class PeerCandidate implements Candidate {
  constructor(
    readonly nodeId: string,
    readonly advertisedUrl: string,
    readonly rpcPath: string,
    readonly signed: boolean,
    readonly wire: boolean,
    public cpuLoad: number,
  ) {}
}

/** A live peer as the registry shows it. Rows are written by others: what cannot be used is left out, with a warning. */
export class KnownPeer {
  readonly nodeId: string;
  readonly #warn: PeerWarning;
  readonly #allowed: AllowedPeers | null;
  readonly #isTarget: boolean;
  #row: NodeRow;
  #metadata: PeerMetadata = NO_METADATA;
  #url: string | null = null;
  #services: readonly ServiceInfo[] = [];
  #servicesHash: string | null = null;
  #offered: ReadonlySet<string> = new Set();
  #declared: ReadonlyMap<string, DeclaredPolicy> = new Map();
  #candidate: PeerCandidate | null = null;
  #view: Peer | null = null;
  #stamp: string | null = null;
  /** Its load has come by another way than its row. */
  #beaten = false;

  /** `allowed` null: every peer may be called. */
  constructor(row: NodeRow, services: ServicesRow | undefined, warn: PeerWarning, allowed: AllowedPeers | null) {
    this.nodeId = row.nodeId;
    this.#warn = warn;
    this.#allowed = allowed;
    this.#row = row;
    this.#isTarget = isTarget(row.nodeId);
    if (!this.#isTarget) warn(this.nodeId, "its node_id fits no header: it is not called");
    this.#readUrl();
    this.#readMetadata();
    this.#readServices(services);
    this.#renewCandidate();
  }

  get lastHeartbeatMs(): number {
    return this.#row.lastHeartbeatMs;
  }

  get servicesHash(): string | null {
    return this.#servicesHash;
  }

  get rev(): number | null {
    return this.#metadata.rev;
  }

  /** Of its row but for heartbeat and load. */
  get stamp(): string {
    return (this.#stamp ??= stampOf(this.#row));
  }

  get line(): DigestLine {
    return { nodeId: this.nodeId, lastHeartbeatMs: this.#row.lastHeartbeatMs, stamp: this.stamp, cpuLoad: this.#metadata.cpuLoad };
  }

  /** What it can be called for; null while it has no usable id or address, drains, or is local-only. */
  get offer(): Offer | null {
    return this.#candidate === null ? null : { candidate: this.#candidate, names: this.#offered };
  }

  declared(action: string): DeclaredPolicy | undefined {
    return this.#declared.get(action);
  }

  get view(): Peer {
    return (this.#view ??= this.#freezeView());
  }

  /** Nothing else of its row has changed, as of `nowMs`: what is from later is from before the clock was set back. */
  beat(lastHeartbeatMs: number, cpuLoad: number, nowMs: number): void {
    this.#row = { ...this.#row, lastHeartbeatMs: Math.max(lastHeartbeatMs, Math.min(this.#row.lastHeartbeatMs, nowMs)) };
    this.#beaten = true;
    this.#metadata = { ...this.#metadata, user: "cpuLoad" in this.#metadata.user ? { ...this.#metadata.user, cpuLoad } : this.#metadata.user, cpuLoad };
    if (this.#candidate !== null) this.#candidate.cpuLoad = cpuLoad;
    this.#view = null;
  }

  /** Takes over a newer state of its row; `services` is given only where they changed. */
  update(row: NodeRow, services: ServicesRow | undefined): void {
    const previous = this.#row;
    this.#row = row;
    this.#view = null;
    if (row.advertisedUrl !== previous.advertisedUrl) this.#readUrl();
    if (row.metadataJson !== previous.metadataJson || this.#beaten) this.#readMetadata();
    this.#beaten = false;
    if (!haveOneStamp(row, previous)) this.#stamp = null;
    if (row.servicesHash === null || services !== undefined) this.#readServices(services);
    this.#renewCandidate();
  }

  #readUrl(): void {
    const { advertisedUrl } = this.#row;
    const parsed = advertisedUrl === null ? { url: null } : this.#parseUrl(advertisedUrl);
    if ("fault" in parsed) this.#warn(this.nodeId, `its advertised_url cannot be used: ${parsed.fault}; it is not called`);
    this.#url = "url" in parsed ? parsed.url : null;
  }

  #parseUrl(advertisedUrl: string): ReturnType<typeof parseAdvertisedUrl> {
    const parsed = parseAdvertisedUrl(advertisedUrl);
    if ("fault" in parsed || this.#allowed === null || this.#allowed.judge(parsed.url) !== "refused") return parsed;
    return { fault: `allowedPeers has no entry for ${parsed.url.slice(0, LONGEST_SHOWN)}` };
  }

  #readMetadata(): void {
    const { metadataJson } = this.#row;
    const metadata = metadataJson === null ? null : parseMetadata(metadataJson);
    if (metadata === null) this.#warn(this.nodeId, "its metadata_json is too large or no JSON object: it is not called");
    else if (metadata.rpcPath === null) this.#warn(this.nodeId, "its rpcPath is no normal path: it is not called");
    this.#metadata = metadata ?? NO_METADATA;
  }

  #readServices(services: ServicesRow | undefined): void {
    const parsed = services === undefined ? null : parseServices(services.json);
    if (parsed === null) this.#warn(this.nodeId, "its services_json is too large or no JSON array: it counts as serving nothing");
    else if (parsed.skipped > 0) this.#warn(this.nodeId, `${parsed.skipped} entries of its services_json are malformed and ignored`);
    this.#services = parsed?.services ?? [];
    this.#declared = parsed?.declared ?? new Map();
    this.#servicesHash = services?.hash ?? null;
    this.#offered = new Set(this.#services.flatMap(({ name, version, actions }) => [`v${version}.${name}`, ...actions]));
  }

  #renewCandidate(): void {
    const { rpcPath, localOnly, draining, signed, wire, cpuLoad } = this.#metadata;
    const current = this.#candidate;
    if (!this.#isTarget || this.#url === null || rpcPath === null || localOnly || draining) this.#candidate = null;
    else if (current?.advertisedUrl === this.#url && current.rpcPath === rpcPath && current.signed === signed && current.wire === wire) current.cpuLoad = cpuLoad;
    else this.#candidate = new PeerCandidate(this.nodeId, this.#url, rpcPath, signed, wire, cpuLoad);
  }

  #freezeView(): Peer {
    return Object.freeze({
      nodeId: this.nodeId,
      advertisedUrl: this.#row.advertisedUrl,
      metadata: Object.freeze(this.#metadata.user),
      services: this.#services,
      startedAtMs: this.#row.startedAtMs,
      lastHeartbeatMs: this.#row.lastHeartbeatMs,
    });
  }
}

/** Certainly; rows that differ in their load only may have one too. */
function haveOneStamp(a: NodeRow, b: NodeRow): boolean {
  return a.advertisedUrl === b.advertisedUrl && a.metadataJson === b.metadataJson && a.servicesHash === b.servicesHash && a.startedAtMs === b.startedAtMs;
}

interface ParsedServices {
  readonly services: readonly ServiceInfo[];
  readonly declared: ReadonlyMap<string, DeclaredPolicy>;
  readonly skipped: number;
}

function parseServices(json: string): ParsedServices | null {
  const list = parseArray(json);
  if (list === null) return null;
  const services = list.map(toServiceInfo).filter((info) => info !== null);
  return { services: Object.freeze(services), declared: readPolicies(list), skipped: list.length - services.length };
}

function parseArray(json: string): readonly unknown[] | null {
  try {
    const value: unknown = JSON.parse(json);
    return Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function toServiceInfo(entry: unknown): ServiceInfo | null {
  if (!isObject(entry)) return null;
  const { name, version, actions = [], events = [] } = entry;
  if (!isName(name) || !Number.isSafeInteger(version) || !isNameList(actions) || !isNameList(events)) return null;
  return Object.freeze({ name, version: version as number, actions: Object.freeze([...actions]), events: Object.freeze([...events]) });
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= LONGEST_NAME;
}

function isNameList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every(isName);
}
