import { MeshError } from "../errors.js";
import { now } from "../pipeline/deadline.js";
import { CpuLoad } from "./cpu-load.js";
import { checkMeta, clampLoad, MESH_KEY, PROTOCOL, WIRE_VERSION } from "./metadata.js";
import { writeLines, type DigestLine } from "./digest.js";
import { INFO_EVENTS } from "./info-events.js";
import { notRunning } from "./not-running.js";
import { within } from "../pipeline/time-limit.js";
import type { MeshMetadata } from "./metadata.js";
import type { Registry } from "./registry.js";
import type { RpcAuth } from "./rpc-gate.js";
import type { Logger } from "../logger.js";
import type { Meta } from "../contract/context.js";
import type { ServiceInfo } from "../contract/mesh-client.js";
import type { Outbox } from "../contract/messaging.js";

const RETRY_MS = 1_000;
/** Longest wait for an event to be committed; it may still be, later. */
const TELL_LIMIT_MS = 2_000;
/** Longest wait for each of a stopping node's last words: a database that hangs must not keep it from stopping. */
const FAREWELL_LIMIT_MS = 3_000;

export interface PresenceOptions {
  readonly registry: Registry;
  readonly outbox: Outbox;
  readonly nodeId: string;
  readonly heartbeatMs: number;
  readonly transport: "http" | "local-only";
  readonly rpcPath: string;
  readonly rpcAuth: RpcAuth;
  readonly meta: Meta | (() => Meta);
  /** What this node serves at the moment of asking. */
  readonly services: () => readonly ServiceInfo[];
  readonly log: Logger;
}

/**
 * This node's row, and what the bus is told about it. The row comes first, always: an event only says that there is
 * something to read. Writes run one after another, so that no heartbeat brings a deleted row back.
 */
export class Presence {
  readonly #options: PresenceOptions;
  readonly #load = new CpuLoad();
  #userMeta: Meta;
  #cpuLoad = 0;
  #advertisedUrl: string | null = null;
  #startedAtMs: number | null = null;
  #rev = 0;
  #draining = false;
  #beating = false;
  #left = false;
  #failing = false;
  #telling = false;
  #lastWrite: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: PresenceOptions) {
    this.#options = options;
    this.#userMeta = typeof options.meta === "function" ? {} : options.meta;
  }

  /** As told to the peers, 0 to 1. */
  get cpuLoad(): number {
    return this.#cpuLoad;
  }

  /** The last heartbeat could not be written. */
  get failing(): boolean {
    return this.#failing;
  }

  /** Count of changes, as the row and the events carry it. */
  get rev(): number {
    return this.#rev;
  }

  /** The row is written, the node announced, and the heartbeat goes. Rejects where the row cannot be written. */
  async start(advertisedUrl: string | null): Promise<void> {
    this.#advertisedUrl = advertisedUrl;
    await this.publish();
    this.#beating = true;
    this.#scheduleBeat(this.#options.heartbeatMs);
  }

  /** Tells the cluster what has changed here. Rejects where the row cannot be written; then nobody has been told. */
  async publish(): Promise<void> {
    this.#rev++;
    await this.#inTurn(() => this.#write());
    await within(this.#tell(INFO_EVENTS.announce), TELL_LIMIT_MS);
  }

  /** Tells the other nodes what this one has read of all. */
  tell(lines: readonly DigestLine[]): void {
    if (this.#beating) void this.#tellInBackground(INFO_EVENTS.heartbeat, { peers: writeLines(lines) });
  }

  /** From here on peers choose other nodes. Rejects where they cannot be told. */
  async drain(): Promise<void> {
    this.#draining = true;
    if ((await within(this.publish(), FAREWELL_LIMIT_MS)) === null) throw hanging();
  }

  /** Ends the heartbeat, deletes the row and says so. Where that fails the row expires by itself. */
  async leave(): Promise<void> {
    this.#beating = false;
    clearTimeout(this.#timer);
    try {
      const removed = await within(this.#inTurn(() => this.#remove()), FAREWELL_LIMIT_MS);
      if (removed === null) throw hanging();
      await within(this.#tell(INFO_EVENTS.leave), TELL_LIMIT_MS);
    } catch (error) {
      this.#options.log.warn("mesh node could not delete its row: peers drop it when it has expired", { err: error });
    }
  }

  async #beat(): Promise<void> {
    const startedAt = now();
    try {
      const swept = await this.#inTurn(() => this.#write());
      this.#noteWritten();
      if (swept) void this.#tellInBackground(INFO_EVENTS.announce);
      this.#scheduleBeat(this.#options.heartbeatMs - (now() - startedAt));
    } catch (error) {
      this.#noteFailure(error);
      this.#scheduleBeat(Math.min(RETRY_MS, this.#options.heartbeatMs));
    }
  }

  #scheduleBeat(delayMs: number): void {
    clearTimeout(this.#timer);
    if (this.#beating) this.#timer = setTimeout(() => void this.#beat(), Math.max(0, delayMs));
  }

  #inTurn<T>(write: () => Promise<T>): Promise<T> {
    const turn = this.#lastWrite.then(write, write);
    this.#lastWrite = turn.catch(() => undefined);
    return turn;
  }

  /** A service that is being registered when the node stops must not bring the row back. */
  #remove(): Promise<unknown> {
    this.#left = true;
    return this.#options.registry.remove(this.#options.nodeId);
  }

  /** Resolves with true where the row had been swept. */
  async #write(): Promise<boolean> {
    if (this.#left) throw notRunning(true);
    const { nodeId, registry, services } = this.#options;
    const first = this.#startedAtMs === null;
    const written = await registry.write({
      nodeId,
      advertisedUrl: this.#advertisedUrl,
      metadataJson: JSON.stringify(this.#metadata()),
      servicesJson: JSON.stringify(services()),
      startedAtMs: this.#startedAtMs,
    });
    this.#startedAtMs = written.startedAtMs;
    return written.inserted && !first;
  }

  #metadata(): Record<string, unknown> {
    const { transport, rpcPath, rpcAuth } = this.#options;
    const user = this.#readUserMeta();
    const measured = this.#load.read();
    this.#cpuLoad = typeof user["cpuLoad"] === "number" ? clampLoad(user["cpuLoad"]) : measured;
    const taken = rpcAuth === "signed" ? { auth: rpcAuth } : { wire: WIRE_VERSION };
    const own: MeshMetadata = { protocol: PROTOCOL, rev: this.#rev, transport, rpcPath, draining: this.#draining, ...(transport === "http" ? taken : {}) };
    return { cpuLoad: this.#cpuLoad, ...user, [MESH_KEY]: own };
  }

  /** What the user's function gives now; the last good value where it throws or gives what cannot be told. */
  #readUserMeta(): Meta {
    const { meta, log } = this.#options;
    if (typeof meta !== "function") return this.#userMeta;
    try {
      const checked = checkMeta(meta());
      if ("meta" in checked) this.#userMeta = checked.meta;
      else log.error(`mesh option meta ${checked.fault}: the last value is kept`);
    } catch (error) {
      log.error("mesh option meta threw: the last value is kept", { err: error });
    }
    return this.#userMeta;
  }

  /** An event that hangs must not hold up the next row; nor may more of them pile up behind it. */
  async #tellInBackground(event: string, news?: object): Promise<void> {
    if (this.#telling) return;
    this.#telling = true;
    await this.#tell(event, news);
    this.#telling = false;
  }

  /** Never rejects: the row is the truth, and peers find it at their next heartbeat. */
  async #tell(event: string, news: object = {}): Promise<void> {
    const { nodeId, outbox, log } = this.#options;
    const payload = { nodeId, rev: this.#rev, ...news };
    try {
      await outbox.emit({ name: event, payload, requestId: nodeId, meta: {} }, "broadcast");
    } catch (error) {
      log.warn("mesh event could not be sent: peers read the registry at their next heartbeat", { event, err: error });
    }
  }

  #noteWritten(): void {
    if (this.#failing) this.#options.log.info("mesh heartbeat is written again");
    this.#failing = false;
  }

  #noteFailure(error: unknown): void {
    if (!this.#failing) this.#options.log.warn("mesh heartbeat could not be written", { err: error });
    this.#failing = true;
  }
}

function hanging(): MeshError {
  return new MeshError(`the registry did not answer within ${FAREWELL_LIMIT_MS}ms`, { code: "TIMEOUT" });
}
