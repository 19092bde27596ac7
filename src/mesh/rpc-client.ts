import { Pool } from "undici";
import { MeshCallError, MeshError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshUnauthorizedError, toError } from "../errors.js";
import { timeoutError } from "../pipeline/bounded-run.js";
import { now } from "../pipeline/deadline.js";
import { asTraceparent, TRACEPARENT } from "../pipeline/traceparent.js";
import type { CancellationView, DeadlineView } from "../contract/registration.js";
import { baseOf } from "./advertised-url.js";
import type { Candidate } from "./directory.js";
import type { ErrorReviver } from "./error-revival.js";
import { readAnswer } from "./rpc-answer.js";
import { CALLER_HEADER, encodeRequest, TIMEOUT_HEADER, TOKEN_HEADER, wireMs } from "./rpc-codec.js";
import { Exchange, type RawAnswer } from "./rpc-exchange.js";
import type { RpcRequest, RpcTransport } from "./rpc-transport.js";
import { SendQueue } from "./send-queue.js";
import { markUndelivered, saysDraining } from "./undelivered.js";

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
}

const DEFAULTS = { maxBodyBytes: 1024 ** 2, maxAnswerBytes: 17 * 1024 ** 2, connections: 64, maxPending: 4096, connectTimeoutMs: 2000 };

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
  readonly headers: readonly string[];
  readonly body: string;
  readonly deadline: DeadlineView;
}

interface PeerConnections {
  readonly nodeId: string;
  readonly advertisedUrl: string;
  readonly rpcPath: string;
  readonly path: string;
  readonly pool: Pool;
  readonly queue: SendQueue;
  /** Dropped: the pool closes when the last request has ended. */
  gone: boolean;
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
    const headers = this.#headers(request);
    const body = this.#encode(request, deadline.remainingMs());
    const peer = this.#peer(candidate);
    const answer = await this.#exchange(peer, { action: request.actionName, headers, body, deadline }, cancellation);
    try {
      return readAnswer(answer.status, answer.text, { action: request.actionName, nodeId: peer.nodeId }, this.#options.revive);
    } catch (error) {
      // It drains. Its row says so too, but may not have been read here yet.
      if (saysDraining(error)) this.#options.suspect(peer.nodeId, true);
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
    const pools = [...this.#leaving, ...Array.from(this.#peers.values(), ({ pool }) => pool)];
    this.#peers.clear();
    await Promise.allSettled(pools.map((pool) => pool.destroy()));
  }

  #closeIfGone({ gone, queue, pool }: PeerConnections): void {
    if (gone && queue.size === 0) void pool.close().catch(() => undefined).then(() => this.#leaving.delete(pool));
  }

  /** All but the remaining time, which is told when the request goes out. */
  #headers(request: RpcRequest): string[] {
    const [token] = this.#options.tokens();
    if (token === undefined) throw new MeshUnauthorizedError("there is no mesh token to send: the secret that meshToken names is missing or empty");
    const headers = [
      "content-type", "application/json",
      TOKEN_HEADER, token,
      CALLER_HEADER, this.#options.nodeId,
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
    const { connections, connectTimeoutMs } = this.#options;
    // The deadline of each call is what limits it: undici's own timeouts are off.
    const pool = new Pool(url.origin, { connections, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, connect: { timeout: connectTimeoutMs } });
    return { nodeId, advertisedUrl, rpcPath, path: url.pathname + url.search, pool, queue: new SendQueue(connections), gone: false, lastAnswerAt: -Infinity };
  }

  #exchange(peer: PeerConnections, sending: Sending, cancellation: CancellationView): Promise<RawAnswer> {
    const { queue } = peer;
    if (cancellation.aborted) return Promise.reject(toError(cancellation.reason));
    if (queue.size >= this.#options.maxPending) return Promise.reject(overloaded(peer, `${queue.size} requests to it are under way or waiting already`));
    const waitMs = queue.expectedWaitMs;
    const longestMs = sending.deadline.remainingMs() * LONGEST_WAIT;
    if (waitMs > longestMs) return Promise.reject(overloaded(peer, `a request would wait ${Math.round(waitMs)}ms for its turn, longer than its time allows`));
    const sentAt = now();
    return new Promise((resolve, reject) => {
      const exchange = this.#exchangeWith(peer, (outcome) => {
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
      takeBack = queue.add(() => this.#dispatch(peer, sending, exchange));
    });
  }

  #exchangeWith(peer: PeerConnections, settle: (outcome: RawAnswer | { readonly error: Error }) => void): Exchange {
    return new Exchange({
      maxBytes: this.#options.maxAnswerBytes,
      answering: () => void (peer.lastAnswerAt = now()),
      answered: settle,
      failed: (error, sent) => settle({ error: this.#failure(peer, error, sent) }),
      released: () => {
        peer.queue.done();
        this.#closeIfGone(peer);
      },
    });
  }

  /** Its turn has come. Where that took too long, the peer is spared a request that nobody waits for. */
  #dispatch({ path, pool }: PeerConnections, { action, headers, body, deadline }: Sending, exchange: Exchange): void {
    const remainingMs = deadline.remainingMs();
    if (remainingMs <= 0) return exchange.onResponseError(undefined, timeoutError(action, deadline.budgetMs));
    pool.dispatch({ path, method: "POST", headers: [...headers, TIMEOUT_HEADER, String(wireMs(remainingMs))], body }, exchange);
  }

  /** A peer that has answered others since is slow with this call, not gone. */
  #suspectIfSilent(peer: PeerConnections, sentAt: number): void {
    if (peer.lastAnswerAt < sentAt && now() - sentAt >= TELLING_WAIT_MS) this.#options.suspect(peer.nodeId);
  }

  #failure(peer: PeerConnections, cause: Error, sent: boolean): Error {
    if (cause instanceof MeshError) return cause;
    const { nodeId } = peer;
    this.#options.suspect(nodeId);
    const reason = cause.message || (cause as NodeJS.ErrnoException).code || cause.name;
    if (sent) return new MeshCallError(`mesh peer ${nodeId} dropped the connection before it answered: ${reason}`, { nodeId, cause });
    return markUndelivered(new MeshCallError(`mesh peer ${nodeId} at ${peer.advertisedUrl} cannot be reached: ${reason}`, { nodeId, cause }));
  }
}

function overloaded({ nodeId }: PeerConnections, reason: string): Error {
  return markUndelivered(new MeshOverloadedError(`mesh peer ${nodeId} has too much to do: ${reason}`, { nodeId }));
}

/** Where requests to a peer go, or null where its row holds no address. A path must not reach into the authority. */
function peerUrl({ advertisedUrl, rpcPath }: Candidate): URL | null {
  if (!rpcPath.startsWith("/") || !URL.canParse(advertisedUrl)) return null;
  const url = new URL(advertisedUrl);
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  const full = baseOf(url) + rpcPath;
  return URL.canParse(full) ? new URL(full) : null;
}
