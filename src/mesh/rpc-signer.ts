import { MeshUnauthorizedError } from "../errors.js";
import { now } from "../pipeline/deadline.js";
import { TRACEPARENT } from "../pipeline/traceparent.js";
import type { Candidate } from "./directory.js";
import type { KeyRing, MeshKey } from "./mesh-key.js";
import { CALLER_HEADER, TIMEOUT_HEADER } from "./rpc-codec.js";
import type { RawAnswer } from "./rpc-exchange.js";
import * as format from "./rpc-signature.js";

export interface RequestSignerOptions {
  /** This node, as callees see it. */
  readonly nodeId: string;
  readonly keys: KeyRing;
  /** Ms since the epoch, on the database's clock. */
  readonly databaseNow: () => number;
}

/** What a request says beside its signature. */
export interface UnsignedRequest {
  /** Asked when the request is signed. */
  readonly timeout: () => string;
  /** Sent, not signed; empty where there is none. */
  readonly trace: string;
  readonly body: string;
}

/** Targets whose counts are kept; the oldest goes first. */
export const MOST_COUNTS = 10_000;

/** Signs what this node sends, with a count for each target. */
export class RequestSigner {
  readonly #options: RequestSignerOptions;
  readonly #counts = new Map<string, number>();

  constructor(options: RequestSignerOptions) {
    this.#options = options;
  }

  /** Throws `MeshUnauthorizedError` where there is no key. */
  prepare(peer: Candidate, request: UnsignedRequest): SignedRequest {
    const key = this.#options.keys.signing;
    if (key === undefined) throw new MeshUnauthorizedError("there is no key to sign with: the secret that meshToken names is missing or empty");
    return new SignedRequest(key, this.#options, peer, request, () => this.#nextNonce(peer.nodeId));
  }

  /** A count that was forgotten goes on above where it stood: it begins at the µs that this process has lived. */
  #nextNonce(target: string): number {
    const last = this.#counts.get(target);
    const next = last === undefined ? Math.ceil(now() * 1_000) : last + 1;
    this.#counts.set(target, next);
    if (this.#counts.size > MOST_COUNTS) this.#counts.delete(this.#counts.keys().next().value!);
    return next;
  }
}

/**
 * The headers of one request, signed when they are read, which undici does as the request leaves the queue for a connection. In
 * the queue a signature would grow old, and be overtaken. A connection that is yet to be made comes after: by as much
 * as that takes, timestamp and timeout are older than the request on the wire.
 */
export class SignedRequest implements Iterable<[string, string]> {
  readonly #key: MeshKey;
  readonly #options: RequestSignerOptions;
  readonly #peer: Candidate;
  readonly #request: UnsignedRequest;
  readonly #nonce: () => number;
  #signature: string | null = null;

  constructor(key: MeshKey, options: RequestSignerOptions, peer: Candidate, request: UnsignedRequest, nonce: () => number) {
    this.#key = key;
    this.#options = options;
    this.#peer = peer;
    this.#request = request;
    this.#nonce = nonce;
  }

  [Symbol.iterator](): Iterator<[string, string]> {
    const { trace } = this.#request;
    const timeout = this.#request.timeout();
    const headers: [string, string][] = [
      ["content-type", "application/json"],
      [format.SIGNATURE_HEADER, this.#sign(timeout)],
      [CALLER_HEADER, this.#options.nodeId],
      [TIMEOUT_HEADER, timeout],
    ];
    if (trace !== "") headers.push([TRACEPARENT, trace]);
    return headers[Symbol.iterator]();
  }

  /** Whether the peer has answered this very request, and nobody else. Answers are signed with the key of the request. */
  answeredBy({ status, body, signature }: RawAnswer): boolean {
    const shown = signature === null ? null : format.readAnswerSignature(signature);
    if (shown === null || this.#signature === null || shown.keyId !== this.#key.id) return false;
    return this.#key.verifies(format.answerText(this.#signature, status, format.bodyHashOf(body)), shown.signature);
  }

  #sign(timeout: string): string {
    const { body } = this.#request;
    const fields = {
      keyId: this.#key.id,
      timestamp: String(Math.round(this.#options.databaseNow())),
      nonce: String(this.#nonce()),
      target: this.#peer.nodeId,
      bodyHash: format.bodyHashOf(body),
    };
    const text = format.requestText(this.#peer.rpcPath, { caller: this.#options.nodeId, timeout }, fields);
    this.#signature = this.#key.sign(text);
    return format.writeRequestSignature({ ...fields, signature: this.#signature });
  }
}
