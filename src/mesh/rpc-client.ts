import type { LookupFunction } from "node:net";
import { Pool } from "undici";
import { MeshCallError, MeshError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshUnauthorizedError, toError } from "../errors.js";
import type { TlsTexts } from "../tls.js";
import { now } from "../pipeline/deadline.js";
import { asTraceparent, TRACEPARENT } from "../pipeline/traceparent.js";
import type { CancellationView, DeadlineView } from "../contract/registration.js";
import { baseOf } from "./advertised-url.js";
import type { AllowedPeers } from "./allowed-peers.js";
import { connectionFailure } from "./connect-failure.js";
import type { Candidate } from "./directory.js";
import type { ErrorReviver } from "./error-revival.js";
import { guardedLookup } from "./guarded-lookup.js";
import { readAnswer } from "./rpc-answer.js";
import { CALLER_HEADER, encodeRequest, TIMEOUT_HEADER, TOKEN_HEADER, wireMs } from "./rpc-codec.js";
import { Exchange, type RawAnswer } from "./rpc-exchange.js";
import type { RpcRequest, RpcTransport } from "./rpc-transport.js";
import { isUndelivered, markUndelivered } from "./undelivered.js";

export interface RpcClientOptions {
  /** This node, as callees see it. */
  readonly nodeId: string;
  /** The first is sent. */
  readonly tokens: () => readonly string[];
  /** Told of a peer that refused or dropped a connection, drains, or let a call time out without a sign of life. */
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

const DEFAULTS = { maxBodyBytes: 1024 ** 2, maxAnswerBytes: 17 * 1024 ** 2, connections: 64, maxPending: 4096, connectTimeoutMs: 2000, tls: {}, allowed: null };

/** A call that had less time than this proves nothing about the peer that did not answer it. */
const TELLING_WAIT_MS = 50;

/** Plain POST over kept-alive connections, one request at a time on each. Redirects are not followed. */
export function createRpcClient(options: RpcClientOptions): RpcTransport {
  return new RpcClient({ ...DEFAULTS, ...options });
}

interface PeerConnections {
  readonly nodeId: string;
  readonly advertisedUrl: string;
  readonly rpcPath: string;
  readonly path: string;
  readonly pool: Pool;
  pending: number;
  /** When the peer last answered anything. */
  lastAnswerAt: number;
}

class RpcClient implements RpcTransport {
  readonly #options: Required<RpcClientOptions>;
  readonly #peers = new Map<string, PeerConnections>();
  /** Pools of peers that are gone, until what is under way on them has ended. */
  readonly #leaving = new Set<Pool>();

  constructor(options: Required<RpcClientOptions>) {
    this.#options = options;
  }

  async send(candidate: Candidate, request: RpcRequest, deadline: DeadlineView, cancellation: CancellationView): Promise<unknown> {
    const headers = this.#headers(request, deadline.remainingMs());
    const body = this.#encode(request, deadline.remainingMs());
    const peer = this.#peer(candidate);
    const answer = await this.#exchange(peer, headers, body, cancellation);
    try {
      return readAnswer(answer.status, answer.text, { action: request.actionName, nodeId: peer.nodeId }, this.#options.revive);
    } catch (error) {
      // It drains. Its row says so too, but may not have been read here yet.
      if (answer.status === 503 && isUndelivered(error)) this.#options.suspect(peer.nodeId, true);
      throw error;
    }
  }

  drop(nodeId: string): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    this.#peers.delete(nodeId);
    this.#leaving.add(peer.pool);
    void peer.pool.close().catch(() => undefined).then(() => this.#leaving.delete(peer.pool));
  }

  async close(): Promise<void> {
    const pools = [...this.#leaving, ...Array.from(this.#peers.values(), ({ pool }) => pool)];
    this.#peers.clear();
    await Promise.allSettled(pools.map((pool) => pool.destroy()));
  }

  #headers(request: RpcRequest, remainingMs: number): string[] {
    const [token] = this.#options.tokens();
    if (token === undefined) throw new MeshUnauthorizedError("there is no mesh token to send: the secret that meshToken names is missing or empty");
    const headers = [
      "content-type", "application/json",
      TOKEN_HEADER, token,
      CALLER_HEADER, this.#options.nodeId,
      TIMEOUT_HEADER, String(wireMs(remainingMs)),
    ];
    const trace = asTraceparent(request.meta[TRACEPARENT]);
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
    const url = peerUrl(candidate);
    if (url === null) {
      this.#options.suspect(nodeId);
      throw markUndelivered(new MeshCallError(`mesh peer ${nodeId} advertises an address that is no http(s) URL: ${advertisedUrl} ${rpcPath}`, { nodeId }));
    }
    const lookup = this.#lookupFor(candidate, url);
    const { connections, connectTimeoutMs, tls } = this.#options;
    const connect = { ...tls, ...lookup, timeout: connectTimeoutMs, minVersion: "TLSv1.2", rejectUnauthorized: true } as const;
    // The deadline of each call is what limits it: undici's own timeouts are off.
    const pool = new Pool(url.origin, { connections, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, connect });
    return { nodeId, advertisedUrl, rpcPath, path: url.pathname + url.search, pool, pending: 0, lastAnswerAt: -Infinity };
  }

  /** The directory leaves out peers that are refused: here is the last look before anything is sent. */
  #lookupFor({ nodeId }: Candidate, url: URL): { readonly lookup?: LookupFunction } {
    const { allowed } = this.#options;
    const verdict = allowed === null ? "allowed" : allowed.judge(url.href);
    if (verdict === "allowed" || allowed === null) return {};
    if (verdict === "by-address") return { lookup: guardedLookup(allowed, url.href) };
    this.#options.suspect(nodeId);
    throw markUndelivered(new MeshCallError(`mesh peer ${nodeId} advertises an address that mesh option allowedPeers does not allow: ${url.origin}`, { nodeId }));
  }

  #exchange(peer: PeerConnections, headers: string[], body: string, cancellation: CancellationView): Promise<RawAnswer> {
    if (cancellation.aborted) return Promise.reject(toError(cancellation.reason));
    if (peer.pending >= this.#options.maxPending) return Promise.reject(overloaded(peer));
    peer.pending++;
    const sentAt = now();
    return new Promise((resolve, reject) => {
      const exchange = new Exchange({
        maxBytes: this.#options.maxAnswerBytes,
        answering: () => void (peer.lastAnswerAt = now()),
        answered: (answer) => {
          unlink();
          resolve(answer);
        },
        failed: (error, sent) => {
          unlink();
          reject(this.#failure(peer, error, sent));
        },
        released: () => void peer.pending--,
      });
      const unlink = cancellation.onAbort((reason) => {
        if (reason instanceof MeshTimeoutError) this.#suspectIfSilent(peer, sentAt);
        const error = toError(reason);
        exchange.abort(error);
        reject(error);
      });
      peer.pool.dispatch({ path: peer.path, method: "POST", headers, body }, exchange);
    });
  }

  /** A peer that has answered others since is slow with this call, not gone. */
  #suspectIfSilent(peer: PeerConnections, sentAt: number): void {
    if (peer.lastAnswerAt < sentAt && now() - sentAt >= TELLING_WAIT_MS) this.#options.suspect(peer.nodeId);
  }

  #failure(peer: PeerConnections, cause: Error, sent: boolean): Error {
    if (cause instanceof MeshError) return cause;
    this.#options.suspect(peer.nodeId);
    return connectionFailure(peer, cause, sent);
  }
}

function overloaded(peer: PeerConnections): Error {
  const message = `${peer.pending} requests to mesh peer ${peer.nodeId} are under way or waiting already`;
  return markUndelivered(new MeshOverloadedError(message, { nodeId: peer.nodeId }));
}

/** Where requests to a peer go, or null where its row holds no address. A path must not reach into the authority. */
function peerUrl({ advertisedUrl, rpcPath }: Candidate): URL | null {
  if (!rpcPath.startsWith("/") || !URL.canParse(advertisedUrl)) return null;
  const url = new URL(advertisedUrl);
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  const full = baseOf(url) + rpcPath;
  return URL.canParse(full) ? new URL(full) : null;
}
