import { MeshCallError, MeshError, MeshPayloadTooLargeError, MeshTimeoutError, MeshUnauthorizedError, toError } from "../errors.js";
import type { TlsTexts } from "../tls.js";
import { now } from "../pipeline/deadline.js";
import { asTraceparent, TRACEPARENT } from "../pipeline/traceparent.js";
import type { CancellationView, DeadlineView } from "../contract/registration.js";
import { parseAdvertisedUrl } from "./advertised-url.js";
import type { AllowedPeers } from "./allowed-peers.js";
import { connectionFailure } from "./connect-failure.js";
import type { Candidate } from "./directory.js";
import type { ErrorReviver } from "./error-revival.js";
import { isObject } from "./json-object.js";
import { KeyRing } from "./mesh-key.js";
import { notRunning } from "./not-running.js";
import { PeerConnections } from "./peer-connections.js";
import { overloaded, refuseWait } from "./peer-overload.js";
import { openPeerPool, type PeerPool } from "./peer-pool.js";
import { readAnswer } from "./rpc-answer.js";
import { byPost, byWire, TELLING_WAIT_MS, type Carrier, type Sending, type TakeBack, type ToFailure } from "./rpc-carriers.js";
import { CALLER_HEADER, encodeRequest, isAtMost, TOKEN_HEADER, wireMs } from "./rpc-codec.js";
import { textOf, type RawAnswer } from "./rpc-exchange.js";
import type { RpcAuth } from "./rpc-gate.js";
import { RequestSigner } from "./rpc-signer.js";
import type { RpcRequest, RpcTransport } from "./rpc-transport.js";
import type { SendQueue } from "./send-queue.js";
import { clearUndelivered, isUndelivered, saysDraining } from "./undelivered.js";
import { LONGEST_ON_WIRE } from "./wire-frames.js";

export interface RpcClientOptions {
  /** This node, as callees see it. */
  readonly nodeId: string;
  /** The first is sent, or signed with. */
  readonly tokens: readonly string[];
  /** `"signed"`: the token is sent to nobody; else to all but the peers that take signed requests only. Default `"token"`. */
  readonly rpcAuth?: RpcAuth;
  /** Ms since the epoch, on the database's clock. */
  readonly databaseNow: () => number;
  /** Told of a peer that refused or dropped a connection, drains, let a call time out without a sign of life, or cannot be told from others. */
  readonly suspect: (nodeId: string, drains?: boolean) => void;
  readonly revive: ErrorReviver;
  /** Longest request body, in bytes; longer ones are refused before they are sent. Default 1 MiB. */
  readonly maxBodyBytes?: number;
  /** Longest answer, in bytes. Default 17 MiB, a little over what a node answers with. */
  readonly maxAnswerBytes?: number;
  /** Connections to one peer. Default 64. */
  readonly connections?: number;
  /** Requests to one peer under way or waiting for a connection; more fail with `MeshOverloadedError`. Default 4096. */
  readonly maxPending?: number;
  /** Default 2000. */
  readonly connectTimeoutMs?: number;
  /** For https peers. Default: the public CAs, and no certificate of this node. */
  readonly tls?: TlsTexts;
  /** Default null: every peer. */
  readonly allowed?: AllowedPeers | null;
}

export const DEFAULTS = {
  rpcAuth: "token",
  maxBodyBytes: 1024 ** 2, maxAnswerBytes: 17 * 1024 ** 2, connections: 64, maxPending: 4096, connectTimeoutMs: 2000, tls: {}, allowed: null,
} as const;

const FIRST_LEVEL_TO_RETURN = 3;

/** On one wire to each peer that takes them; else by plain POST over kept-alive connections. Redirects are not followed. */
export function createRpcClient(options: RpcClientOptions): RpcTransport {
  return new RpcClient({ ...DEFAULTS, ...options });
}

class RpcClient implements RpcTransport {
  readonly #options: Required<RpcClientOptions>;
  readonly #signer: RequestSigner;
  readonly #peers = new Map<string, PeerConnections>();
  /** Those of peers that are gone, until what is under way to them has ended. */
  readonly #leaving = new Set<PeerConnections>();
  #closed = false;

  constructor(options: Required<RpcClientOptions>) {
    this.#options = options;
    this.#signer = new RequestSigner({ nodeId: options.nodeId, keys: new KeyRing(options.tokens), databaseNow: options.databaseNow });
  }

  async send(candidate: Candidate, request: RpcRequest, deadline: DeadlineView, cancellation: CancellationView): Promise<unknown> {
    if (this.#closed) throw notRunning(true);
    const peer = this.#peer(candidate);
    const isSigned = this.#options.rpcAuth === "signed" || candidate.signed === true;
    const wire = candidate.wire === true && !isSigned && !isBetterByPost(peer, request) ? peer.link.open() : null;
    // Before anything that costs time: what is refused should cost none.
    this.#refuseFull(peer);
    const queue = wire === null ? peer.queue : limitOf(peer, request);
    if (queue !== undefined) refuseWait(peer, queue, deadline.remainingMs());
    const body = this.#encode(request, deadline.remainingMs());
    const sending: Sending = { action: request.actionName, body, deadline, cancellation };
    if (wire !== null && isAtMost(body, LONGEST_ON_WIRE)) {
      const answer = await this.#exchange(peer, byWire({ wire, limit: queue, peer, sending, toFailure: this.#toFailure }), cancellation);
      if (answer !== null) return this.#read(peer, request, answer);
      if (this.#closed) throw notRunning(true);
    }
    if (wire !== null) refuseWait(peer, peer.queue, deadline.remainingMs());
    const trace = asTraceparent(request.meta[TRACEPARENT]);
    const signed = isSigned ? this.#signer.prepare(candidate, { timeout: () => String(wireMs(deadline.remainingMs())), trace: trace ?? "", body }) : null;
    const headers = signed ?? this.#postHeaders(trace);
    const { maxAnswerBytes } = this.#options;
    const answer = await this.#exchange(peer, byPost(peer, sending, { headers, maxAnswerBytes, toFailure: this.#toFailure }), cancellation);
    if (signed?.answeredBy(answer) === false) throw this.#distrust(peer, request.actionName, answer);
    return this.#read(peer, request, answer);
  }

  drop(nodeId: string): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    this.#peers.delete(nodeId);
    this.#leaving.add(peer);
    peer.leave();
  }

  async close(): Promise<void> {
    this.#closed = true;
    const peers = [...this.#leaving, ...this.#peers.values()];
    this.#peers.clear();
    this.#leaving.clear();
    await Promise.all(peers.map((peer) => peer.destroy()));
  }

  /** All but the remaining time, which is told when the request goes out. */
  #postHeaders(trace: string | null): string[] {
    const headers = ["content-type", "application/json", ...this.#ownHeaders()];
    if (trace !== null) headers.push(TRACEPARENT, trace);
    return headers;
  }

  #ownHeaders(): string[] {
    const [token] = this.#options.tokens;
    if (token === undefined) throw new MeshUnauthorizedError("there is no mesh token to send: the secret that meshToken names is missing or empty");
    return [TOKEN_HEADER, token, CALLER_HEADER, this.#options.nodeId];
  }

  #encode(request: RpcRequest, remainingMs: number): string {
    const body = encodeRequest(request, this.#options.nodeId, remainingMs);
    const limit = this.#options.maxBodyBytes;
    if (isAtMost(body, limit)) return body;
    throw new MeshPayloadTooLargeError(`the arguments of ${request.actionName} are longer than maxBodyBytes (${limit})`);
  }

  #peer(candidate: Candidate): PeerConnections {
    const known = this.#peers.get(candidate.nodeId);
    if (known !== undefined) {
      if (known.advertisedUrl === candidate.advertisedUrl && known.rpcPath === candidate.rpcPath) return known;
      this.drop(candidate.nodeId);
    }
    const peer = new PeerConnections(candidate, this.#openPool(candidate), {
      ...this.#options,
      wireHeaders: () => this.#ownHeaders(),
      onClosed: (closed) => this.#leaving.delete(closed),
    });
    this.#peers.set(candidate.nodeId, peer);
    return peer;
  }

  #openPool(candidate: Candidate): PeerPool {
    try {
      return openPeerPool(candidate, this.#options);
    } catch (error) {
      this.#options.suspect(candidate.nodeId);
      throw error;
    }
  }

  #refuseFull(peer: PeerConnections): void {
    const { size } = peer;
    if (size >= this.#options.maxPending) throw overloaded(peer, `${size} requests to it are under way or waiting already`);
  }

  #exchange<Answer>(peer: PeerConnections, carry: Carrier<Answer>, cancellation: CancellationView): Promise<Answer> {
    if (cancellation.aborted) return Promise.reject(toError(cancellation.reason));
    const sentAt = now();
    return new Promise((resolve, reject) => {
      let takeBack: TakeBack = () => false;
      const unlink = cancellation.onAbort((reason) => {
        const error = toError(reason);
        const wasSent = takeBack(error);
        if (wasSent && reason instanceof MeshTimeoutError) this.#suspectIfSilent(peer, sentAt);
        reject(error);
      });
      takeBack = carry({
        answered: (answer) => {
          unlink();
          resolve(answer);
        },
        failed: (error) => {
          unlink();
          reject(error);
        },
      });
    });
  }

  #read(peer: PeerConnections, { actionName: action }: RpcRequest, answer: RawAnswer): unknown {
    peer.largeAnswers.note(action, answer.body);
    try {
      return readAnswer(answer.status, textOf(answer), { action, nodeId: peer.nodeId }, this.#options.revive);
    } catch (error) {
      if (isUndelivered(error)) this.#noteUndelivered(peer, answer.status, error);
      throw error;
    }
  }

  /** The error in place of an answer that anybody may have given. Nothing of the answer is believed. */
  #distrust({ nodeId, advertisedUrl }: PeerConnections, action: string, { status, signature }: RawAnswer): MeshError {
    this.#options.suspect(nodeId);
    if (status === 401 && signature === null) return new MeshUnauthorizedError(refusedUnsigned(nodeId, advertisedUrl), { nodeId });
    const what = signature === null ? "without a signature" : "with a signature that does not fit";
    const message = `mesh peer ${nodeId} at ${advertisedUrl} answered ${status} to ${action} ${what}: it cannot be told who answered`;
    return new MeshCallError(message, { code: "BAD_SIGNATURE", nodeId });
  }

  #noteUndelivered({ nodeId, advertisedUrl }: PeerConnections, status: number, error: unknown): void {
    // It drains. Its row says so too, but may not have been read here yet.
    if (saysDraining(error)) this.#options.suspect(nodeId, true);
    if (status !== 421) return;
    this.#options.suspect(nodeId);
    // Only the successor at the peer's own address shows that the peer is gone; any other node may have been sent a copy.
    if (!tellsAddress(error, advertisedUrl)) clearUndelivered(error);
  }

  /**
   * A peer that has answered others since is slow with this call, not gone. Of one that has not, the wire may be dead: it is
   * asked, since calls with more time may be under way on it.
   */
  #suspectIfSilent(peer: PeerConnections, sentAt: number): void {
    if (peer.lastAnswerAt >= sentAt || now() - sentAt < TELLING_WAIT_MS) return;
    this.#options.suspect(peer.nodeId);
    peer.link.probe();
  }

  readonly #toFailure: ToFailure = (peer, cause, sent) => {
    if (cause instanceof MeshError) return cause;
    if (this.#closed && !sent) return notRunning(true);
    if (!this.#closed) this.#options.suspect(peer.nodeId);
    return connectionFailure(peer, cause, sent);
  };
}

/**
 * The limit under which a call is sent on the wire. None for one that comes from a call of this node to the peer, as the third of a chain may at the
 * soonest: it would wait for what waits for it.
 */
const limitOf = ({ limits }: PeerConnections, { actionName, level }: RpcRequest): SendQueue | undefined => (level < FIRST_LEVEL_TO_RETURN ? limits.of(actionName) : undefined);

/** Large answers hold up what comes after them on a wire. There are fewer connections, so they are no place to wait. */
const isBetterByPost = ({ largeAnswers, queue }: PeerConnections, { actionName }: RpcRequest): boolean => largeAnswers.expects(actionName) && queue.hasRoom;

function refusedUnsigned(nodeId: string, advertisedUrl: string): string {
  return `mesh peer ${nodeId} at ${advertisedUrl} does not take this node's signature (401, unsigned): do both have the secret that meshToken names, does the peer know signed requests, and does anything between them change path or headers?`;
}

function tellsAddress(error: unknown, advertisedUrl: string): boolean {
  const told = (error as MeshError).data;
  if (!isObject(told) || typeof told["advertisedUrl"] !== "string") return false;
  const parsed = parseAdvertisedUrl(told["advertisedUrl"]);
  return "url" in parsed && parsed.url === advertisedUrl;
}
