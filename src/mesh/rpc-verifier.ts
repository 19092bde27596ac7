import type { IncomingMessage } from "node:http";
import type { KeyRing, MeshKey } from "./mesh-key.js";
import { ReplayGuard } from "./replay-guard.js";
import { CALLER_HEADER, idOrNull, TIMEOUT_HEADER } from "./rpc-codec.js";
import * as format from "./rpc-signature.js";

/** How far a timestamp may be from the database's clock, either way. */
export const CLOCK_TOLERANCE_MS = 60_000;

export type SignatureFault = "malformed" | "unknown-key" | "wrong-signature" | "stale" | "replayed" | "wrong-node" | "too-many-callers";

/** What a request with a verified signature has shown: its answer is signed with it. */
export interface RequestProof {
  readonly key: MeshKey;
  readonly signature: string;
  readonly caller: string;
  readonly bodyHash: string;
}

export interface Verification {
  /** Null where the signature is none of a key that is known here. */
  readonly proof: RequestProof | null;
  /** Null: the request may go on to its body, whose hash is yet to be compared. */
  readonly fault: SignatureFault | null;
  /** For the log. */
  readonly detail?: Readonly<Record<string, unknown>>;
}

export interface SignatureVerifierOptions {
  readonly nodeId: string;
  readonly keys: KeyRing;
  /** Ms since the epoch, on the database's clock. */
  readonly databaseNow: () => number;
}

/** Tells from its headers alone who a request comes from, for whom and when it was made, and that it comes for the first time. */
export class SignatureVerifier {
  readonly #options: SignatureVerifierOptions;
  /** A timestamp from the future stays acceptable for up to twice the tolerance. */
  readonly #replays = new ReplayGuard({ keepMs: 2 * CLOCK_TOLERANCE_MS });

  constructor(options: SignatureVerifierOptions) {
    this.#options = options;
  }

  verify({ headers, url = "" }: IncomingMessage, header: string): Verification {
    const shown = format.readRequestSignature(header);
    const caller = idOrNull(headers[CALLER_HEADER]);
    if (shown === null || caller === null) return fault("malformed");
    const key = this.#options.keys.find(shown.keyId);
    if (key === undefined) return fault("unknown-key", { key: shown.keyId });
    const covered = { caller, timeout: textOf(headers[TIMEOUT_HEADER]) };
    if (!key.verifies(format.requestText(url, covered, shown), shown.signature)) return fault("wrong-signature", { key: shown.keyId });
    const proof: RequestProof = { key, signature: shown.signature, caller, bodyHash: shown.bodyHash };
    const differenceMs = Number(shown.timestamp) - this.#options.databaseNow();
    if (Math.abs(differenceMs) > CLOCK_TOLERANCE_MS) return { proof, fault: "stale", detail: { caller, differenceMs: Math.round(differenceMs) } };
    if (shown.target !== this.#options.nodeId) return { proof, fault: "wrong-node", detail: { caller, target: shown.target } };
    return { proof, fault: this.#faultOfNonce(caller, Number(shown.nonce)), detail: { caller } };
  }

  /** Comes last: a nonce that was taken must mean that this request has been let in. */
  #faultOfNonce(caller: string, nonce: number): SignatureFault | null {
    if (!Number.isSafeInteger(nonce)) return "malformed";
    const verdict = this.#replays.take(caller, nonce);
    if (verdict === "new") return null;
    return verdict === "seen" ? "replayed" : "too-many-callers";
  }
}

/** The value of `SIGNATURE_HEADER` in the answer to a request. */
export function signAnswer({ key, signature }: RequestProof, status: number, body: string): string {
  return format.writeAnswerSignature({ keyId: key.id, signature: key.sign(format.answerText(signature, status, format.bodyHashOf(body))) });
}

function fault(kind: SignatureFault, detail?: Readonly<Record<string, unknown>>): Verification {
  return { proof: null, fault: kind, ...(detail === undefined ? {} : { detail }) };
}

/** A header as it was sent; Node joins one that was sent twice. */
const textOf = (header: string | readonly string[] | undefined): string => (typeof header === "string" ? header : "");
