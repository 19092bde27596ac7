import { MeshCallError, MeshError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshUnauthorizedError, toError } from "../errors.js";
import { timeoutError } from "../pipeline/bounded-run.js";
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
import { openPeerPool, type PeerPool } from "./peer-pool.js";
import { readAnswer } from "./rpc-answer.js";
import { CALLER_HEADER, encodeRequest, TIMEOUT_HEADER, TOKEN_HEADER, wireMs } from "./rpc-codec.js";
import { Exchange, type RawAnswer } from "./rpc-exchange.js";
import type { RpcAuth } from "./rpc-gate.js";
import { RequestSigner, SignedRequest } from "./rpc-signer.js";
import type { RpcRequest, RpcTransport } from "./rpc-transport.js";
import { SendQueue } from "./send-queue.js";
import { clearUndelivered, isUndelivered, markUndelivered, saysDraining } from "./undelivered.js";

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

const DEFAULTS = {
  rpcAuth: "token",
  maxBodyBytes: 1024 ** 2, maxAnswerBytes: 17 * 1024 ** 2, connections: 64, maxPending: 4096, connectTimeoutMs: 2000, tls: {}, allowed: null,
} as const;

/** A call that had less time than this proves nothing about the peer that did not answer it. */
const TELLING_WAIT_MS = 50;

/**
 * Share of a call's time that it may be expected to wait for a connection. A queue that took all of it would hand the
 * peer nothing but requests whose callers have given up when the answer comes.
 */
const LONGEST_WAIT = 0.5;

/** Plain POST over kept-alive connections, one request at a time on each. Redirects are not followed. */
export function createRpcClient(options: RpcClientOptions): RpcTransport {
  return new RpcClient({ ...DEFAULTS, ...options });
}

/** A request as it waits to be sent. */
interface Sending {
  readonly action: string;
  /** Without the time that remains where they are a list: that is told when the request goes out. */
  readonly headers: readonly string[] | SignedRequest;
  readonly body: string;
  readonly deadline: DeadlineView;
}

interface PeerConnections extends PeerPool {
  readonly nodeId: string;
  readonly advertisedUrl: string;
  readonly rpcPath: string;
  readonly queue: SendQueue;
  /** Dropped: the pool closes when the last request has ended. */
  gone: boolean;
  /** When the peer last answered anything. */
  lastAnswerAt: number;
}

class RpcClient implements RpcTransport {
  readonly #options: Required<RpcClientOptions>;
  readonly #signer: RequestSigner;
  readonly #peers = new Map<string, PeerConnections>();
  /** Pools of peers that are gone, until what is under way on them has ended. */
  readonly #leaving = new Set<PeerPool["pool"]>();
  #closed = false;

  constructor(options: Required<RpcClientOptions>) {
    this.#options = options;
    this.#signer = new RequestSigner({ nodeId: options.nodeId, keys: new KeyRing(options.tokens), databaseNow: options.databaseNow });
  }

  async send(candidate: Candidate, request: RpcRequest, deadline: DeadlineView, cancellation: CancellationView): Promise<unknown> {
    if (this.#closed) throw notRunning(true);
    const peer = this.#peer(candidate);
    // Before anything that costs time: what is refused should cost none.
    this.#refuseOverload(peer, deadline.remainingMs());
    const trace = asTraceparent(request.meta[TRACEPARENT]);
    const body = this.#encode(request, deadline.remainingMs());
    const isSigned = this.#options.rpcAuth === "signed" || candidate.signed === true;
    const signed = isSigned ? this.#signer.prepare(candidate, { timeout: () => String(wireMs(deadline.remainingMs())), trace: trace ?? "", body }) : null;
    const headers = signed ?? this.#tokenHeaders(trace);
    const answer = await this.#exchange(peer, { action: request.actionName, headers, body, deadline }, cancellation);
    if (signed?.answeredBy(answer) === false) throw this.#distrust(peer, request.actionName, answer);
    try {
      return readAnswer(answer.status, answer.body.toString("utf8"), { action: request.actionName, nodeId: peer.nodeId }, this.#options.revive);
    } catch (error) {
      if (isUndelivered(error)) this.#noteUndelivered(peer, answer.status, error);
      throw error;
    }
  }

  drop(nodeId: string): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    this.#peers.delete(nodeId);
    this.#leaving.add(peer.pool);
    peer.gone = true;
    this.#closeIfGone(peer);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const pools = [...this.#leaving, ...Array.from(this.#peers.values(), ({ pool }) => pool)];
    this.#peers.clear();
    this.#leaving.clear();
    await Promise.allSettled(pools.map((pool) => pool.destroy()));
  }

  /** Called when nothing is under way to the peer any more, and when it is dropped. */
  #closeIfGone({ gone, queue, pool }: PeerConnections): void {
    if (gone && queue.size === 0) void pool.close().catch(() => undefined).then(() => this.#leaving.delete(pool));
  }

  /** All but the remaining time, which is told when the request goes out. */
  #tokenHeaders(trace: string | null): string[] {
    const [token] = this.#options.tokens;
    if (token === undefined) throw new MeshUnauthorizedError("there is no mesh token to send: the secret that meshToken names is missing or empty");
    const headers = [
      "content-type", "application/json",
      TOKEN_HEADER, token,
      CALLER_HEADER, this.#options.nodeId,
    ];
    if (trace !== null) headers.push(TRACEPARENT, trace);
    return headers;
  }

  #encode(request: RpcRequest, remainingMs: number): string {
    const body = encodeRequest(request, this.#options.nodeId, remainingMs);
    const limit = this.#options.maxBodyBytes;
    if (body.length * 3 <= limit || Buffer.byteLength(body) <= limit) return body;
    throw new MeshPayloadTooLargeError(`the arguments of ${request.actionName} are longer than maxBodyBytes (${limit})`);
  }

  #peer(candidate: Candidate): PeerConnections {
    const known = this.#peers.get(candidate.nodeId);
    if (known !== undefined) {
      if (known.advertisedUrl === candidate.advertisedUrl && known.rpcPath === candidate.rpcPath) return known;
      this.drop(candidate.nodeId);
    }
    const peer = this.#connect(candidate);
    this.#peers.set(candidate.nodeId, peer);
    return peer;
  }

  #connect(candidate: Candidate): PeerConnections {
    const { nodeId, advertisedUrl, rpcPath } = candidate;
    const { path, pool } = this.#openPool(candidate);
    const queue = new SendQueue(this.#options.connections, () => this.#closeIfGone(peer));
    const peer: PeerConnections = { nodeId, advertisedUrl, rpcPath, path, pool, queue, gone: false, lastAnswerAt: -Infinity };
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

  #refuseOverload(peer: PeerConnections, remainingMs: number): void {
    const { size, expectedWaitMs } = peer.queue;
    if (size >= this.#options.maxPending) throw overloaded(peer, `${size} requests to it are under way or waiting already`);
    if (expectedWaitMs > remainingMs * LONGEST_WAIT) throw overloaded(peer, `a request would wait ${Math.round(expectedWaitMs)}ms for its turn, longer than its time allows`);
  }

  #exchange(peer: PeerConnections, sending: Sending, cancellation: CancellationView): Promise<RawAnswer> {
    if (cancellation.aborted) return Promise.reject(toError(cancellation.reason));
    const sentAt = now();
    return new Promise((resolve, reject) => {
      let over = (): void => undefined;
      const exchange = this.#exchangeWith(peer, () => over(), (outcome) => {
        unlink();
        if ("error" in outcome) reject(outcome.error);
        else resolve(outcome);
      });
      let takeBack = (): void => undefined;
      const unlink = cancellation.onAbort((reason) => {
        if (reason instanceof MeshTimeoutError) this.#suspectIfSilent(peer, sentAt);
        const error = toError(reason);
        takeBack();
        exchange.abort(error);
        reject(error);
      });
      takeBack = peer.queue.add((ended) => {
        over = ended;
        return this.#dispatch(peer, sending, exchange);
      });
    });
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

  #exchangeWith(peer: PeerConnections, over: () => void, settle: (outcome: RawAnswer | { readonly error: Error }) => void): Exchange {
    return new Exchange({
      maxBytes: this.#options.maxAnswerBytes,
      answering: () => void (peer.lastAnswerAt = now()),
      answered: settle,
      failed: (error, sent) => settle({ error: this.#failure(peer, error, sent) }),
      released: over,
    });
  }

  /** Its turn has come. False where that took too long: the peer is spared a request that nobody waits for. */
  #dispatch({ path, pool }: PeerConnections, { action, headers, body, deadline }: Sending, exchange: Exchange): boolean {
    const remainingMs = deadline.remainingMs();
    if (remainingMs <= 0) {
      exchange.expire(timeoutError(action, deadline.budgetMs));
      return false;
    }
    const full = headers instanceof SignedRequest ? headers : [...headers, TIMEOUT_HEADER, String(wireMs(remainingMs))];
    pool.dispatch({ path, method: "POST", headers: full, body }, exchange);
    return true;
  }

  /** A peer that has answered others since is slow with this call, not gone. */
  #suspectIfSilent(peer: PeerConnections, sentAt: number): void {
    if (peer.lastAnswerAt < sentAt && now() - sentAt >= TELLING_WAIT_MS) this.#options.suspect(peer.nodeId);
  }

  #failure(peer: PeerConnections, cause: Error, sent: boolean): Error {
    if (cause instanceof MeshError) return cause;
    if (this.#closed && !sent) return notRunning(true);
    if (!this.#closed) this.#options.suspect(peer.nodeId);
    return connectionFailure(peer, cause, sent);
  }
}

function overloaded({ nodeId }: PeerConnections, reason: string): Error {
  return markUndelivered(new MeshOverloadedError(`mesh peer ${nodeId} has too much to do: ${reason}`, { nodeId }));
}

function refusedUnsigned(nodeId: string, advertisedUrl: string): string {
  return `mesh peer ${nodeId} at ${advertisedUrl} does not take this node's signature (401, unsigned): do both have the secret that meshToken names, does the peer know signed requests, and does anything between them change path or headers?`;
}

function tellsAddress(error: unknown, advertisedUrl: string): boolean {
  const told = (error as MeshError).data;
  if (!isObject(told) || typeof told["advertisedUrl"] !== "string") return false;
  const parsed = parseAdvertisedUrl(told["advertisedUrl"]);
  return "url" in parsed && parsed.url === advertisedUrl;
}
