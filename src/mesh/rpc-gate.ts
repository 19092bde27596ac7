import type { IncomingMessage } from "node:http";
import type { Logger } from "../logger.js";
import { KeyRing, sameInConstantTime } from "./mesh-key.js";
import { TOKEN_HEADER } from "./rpc-codec.js";
import { RefusalLog } from "./rpc-refusal-log.js";
import { bodyHashOf, SIGNATURE_HEADER } from "./rpc-signature.js";
import { TokenVerifier } from "./rpc-token.js";
import { SignatureVerifier, type RequestProof, type SignatureFault } from "./rpc-verifier.js";

/** How a node proves to its peers that it belongs to the mesh. */
export type RpcAuth = "token" | "signed";

export interface RequestGateOptions {
  readonly nodeId: string;
  /** `"signed"`: tokens are refused. `"token"`: signatures are taken as well. */
  readonly rpcAuth: RpcAuth;
  /** All are accepted, as token or as key. */
  readonly tokens: readonly string[];
  /** Ms since the epoch, on the database's clock. */
  readonly databaseNow: () => number;
}

export interface Admission {
  /** Null where the request is not signed, or not by a key that is known. */
  readonly proof: RequestProof | null;
  readonly verdict: "admitted" | "unauthorized" | "wrong-node" | "too-many-callers";
}

const BY_TOKEN: Admission = { proof: null, verdict: "admitted" };
const UNAUTHORIZED: Admission = { proof: null, verdict: "unauthorized" };

const NO_TOKEN = "its token is missing or none that meshToken names; do all nodes share the secret?";
const NO_SIGNATURE = 'it is not signed; do all nodes run with rpcAuth: "signed"?';
const OTHER_BODY = "its body is not the one that was signed";
const REASONS: Readonly<Record<SignatureFault, string>> = {
  "malformed": "its signature header, caller or nonce is malformed",
  "unknown-key": "it is signed with a key that meshToken does not name; do all nodes share the secret?",
  "wrong-signature": "its signature does not fit; something on the way may change path or headers",
  "stale": "its timestamp is too far from the database's clock",
  "replayed": "it has been here before",
  "wrong-node": "it is for another node, which had this address before",
  "too-many-callers": "too many callers are remembered already",
};

/** Decides, before the body is read, who may make requests of this node. */
export class RequestGate {
  readonly #options: RequestGateOptions;
  readonly #tokens: TokenVerifier;
  readonly #signatures: SignatureVerifier;
  readonly #refusals = new RefusalLog();

  constructor(options: RequestGateOptions) {
    this.#options = options;
    this.#tokens = new TokenVerifier(options.tokens);
    this.#signatures = new SignatureVerifier({ nodeId: options.nodeId, keys: new KeyRing(options.tokens), databaseNow: options.databaseNow });
  }

  /** A request with a signature is judged by that alone. */
  admit(request: IncomingMessage, log: Logger): Admission {
    const signature = request.headers[SIGNATURE_HEADER];
    if (typeof signature === "string") return this.#admitSigned(request, signature, log);
    const signedOnly = this.#options.rpcAuth === "signed";
    if (!signedOnly && this.#tokens.accepts(request.headers[TOKEN_HEADER])) return BY_TOKEN;
    this.#refusals.note(request, signedOnly ? NO_SIGNATURE : NO_TOKEN, log);
    return UNAUTHORIZED;
  }

  /** Whether a body is the one that its request was signed with; one of an unsigned request may be any. */
  admitsBody({ proof }: Admission, body: Uint8Array, request: IncomingMessage, log: Logger): boolean {
    if (proof === null || sameInConstantTime(bodyHashOf(body), proof.bodyHash)) return true;
    this.#refusals.note(request, OTHER_BODY, log, { caller: proof.caller });
    return false;
  }

  #admitSigned(request: IncomingMessage, signature: string, log: Logger): Admission {
    const { proof, fault, detail } = this.#signatures.verify(request, signature);
    if (fault === null) return { proof, verdict: "admitted" };
    this.#refusals.note(request, REASONS[fault], log, detail);
    return { proof, verdict: fault === "wrong-node" || fault === "too-many-callers" ? fault : "unauthorized" };
  }
}
