import { now } from "../pipeline/deadline.js";
import type { Candidate } from "./directory.js";
import type { PeerPool } from "./peer-pool.js";
import { CallLimits } from "./call-limits.js";
import { LargeAnswers } from "./large-answers.js";
import { SendQueue } from "./send-queue.js";
import { TARGET_HEADER, WIRE_PROTOCOL } from "./wire-frames.js";
import { WireLink } from "./wire-link.js";

export interface PeerConnectionsOptions {
  /** Requests by POST at a time. */
  readonly connections: number;
  /** Requests under way and waiting. */
  readonly maxPending: number;
  readonly maxAnswerBytes: number;
  readonly connectTimeoutMs: number;
  /** What an upgrade shows the peer. May throw. */
  readonly wireHeaders: () => readonly string[];
  /** The peer has been dropped, and its connections have closed. */
  readonly onClosed: (peer: PeerConnections) => void;
}

/** An upgrade takes a round trip on top of its connection. */
const UPGRADE_PER_CONNECT = 2;

/** All connections to one peer, kept until it is gone and nothing is under way to it any more. */
export class PeerConnections {
  readonly nodeId: string;
  readonly advertisedUrl: string;
  readonly rpcPath: string;
  /** Of requests. */
  readonly path: string;
  readonly pool: PeerPool["pool"];
  /** Of requests by POST. */
  readonly queue: SendQueue;
  readonly link: WireLink;
  /** Of requests on the wire. */
  readonly limits: CallLimits;
  readonly largeAnswers = new LargeAnswers();
  readonly #onClosed: (peer: PeerConnections) => void;
  /** When the peer last answered anything. */
  lastAnswerAt = -Infinity;
  #gone = false;

  constructor({ nodeId, advertisedUrl, rpcPath }: Candidate, { path, pool, upgrade }: PeerPool, options: PeerConnectionsOptions) {
    this.nodeId = nodeId;
    this.advertisedUrl = advertisedUrl;
    this.rpcPath = rpcPath;
    this.path = path;
    this.pool = pool;
    this.#onClosed = options.onClosed;
    const onIdle = (): void => this.#closeIfGone();
    this.queue = new SendQueue({ atOnce: options.connections, onIdle });
    this.limits = new CallLimits({ most: options.maxPending, onIdle });
    this.link = new WireLink({
      connect: async (signal) => upgrade(WIRE_PROTOCOL, [...options.wireHeaders(), TARGET_HEADER, nodeId], signal),
      timeoutMs: UPGRADE_PER_CONNECT * options.connectTimeoutMs,
      maxAnswerBytes: options.maxAnswerBytes,
      onSign: () => (this.lastAnswerAt = now()),
      onIdle,
    });
  }

  /** Requests under way and waiting. */
  get size(): number {
    return this.queue.size + this.link.size + this.limits.waiting;
  }

  /** The peer is gone: connections close when nothing is under way any more. */
  leave(): void {
    this.#gone = true;
    this.#closeIfGone();
  }

  /** Closes all at once; what is under way fails. */
  async destroy(): Promise<void> {
    this.link.close();
    await this.pool.destroy().catch(() => undefined);
  }

  #closeIfGone(): void {
    if (!this.#gone || this.size > 0) return;
    this.link.close();
    void this.pool.close().catch(() => undefined).then(() => this.#onClosed(this));
  }
}
