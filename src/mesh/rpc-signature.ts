import { hash } from "node:crypto";

export const SIGNATURE_HEADER = "x-chimpbase-mesh-signature";

/** What stands in the signature header of a request, as it was sent: the signature covers the text, not its meaning. */
export interface SignatureFields {
  readonly keyId: string;
  /** Ms since the epoch, on the database's clock. */
  readonly timestamp: string;
  readonly nonce: string;
  /** Node id of the callee, new at each boot. */
  readonly target: string;
  /** SHA-256 in hex. */
  readonly bodyHash: string;
}

export interface RequestSignature extends SignatureFields {
  readonly signature: string;
}

/**
 * The headers beside it that a signature covers; empty where the request has none. `traceparent` is none of them: tracers
 * in the process, and proxies, set it anew, and the trace that counts is in the body.
 */
export interface SignedHeaders {
  readonly caller: string;
  readonly timeout: string;
}

export interface AnswerSignature {
  readonly keyId: string;
  readonly signature: string;
}

/** Sees to it that each signature is good for one thing only. */
const REQUEST = "chimpbase-mesh-rpc-v1-request";
const ANSWER = "chimpbase-mesh-rpc-v1-answer";

const TARGET_FORM = /^[!-:<-~]{1,128}$/;
const REQUEST_FORM = /^v1;key=([0-9a-f]{16});ts=(\d{1,15});nonce=(\d{1,16});target=([!-:<-~]{1,128});body=([0-9a-f]{64});sig=([\w-]{43})$/;
const ANSWER_FORM = /^v1;key=([0-9a-f]{16});sig=([\w-]{43})$/;

/** Whether requests to this node id can be signed: it fits the header. */
export const isTarget = (nodeId: string): boolean => TARGET_FORM.test(nodeId);

/** The text that a request's signature is made over. `path`: the `rpcPath` of the callee's row. */
export function requestText(path: string, { caller, timeout }: SignedHeaders, fields: SignatureFields): string {
  const { target, timestamp, nonce, bodyHash } = fields;
  return `${REQUEST}\nPOST\n${path}\n${caller}\n${target}\n${timestamp}\n${nonce}\n${timeout}\n${bodyHash}`;
}

/** The text that an answer's signature is made over: with the request's signature in it, it fits that request alone. */
export function answerText(requestSignature: string, status: number, bodyHash: string): string {
  return `${ANSWER}\n${requestSignature}\n${status}\n${bodyHash}`;
}

export function writeRequestSignature({ keyId, timestamp, nonce, target, bodyHash, signature }: RequestSignature): string {
  return `v1;key=${keyId};ts=${timestamp};nonce=${nonce};target=${target};body=${bodyHash};sig=${signature}`;
}

/** Null where the header holds no signature of this kind. */
export function readRequestSignature(header: string): RequestSignature | null {
  const match = REQUEST_FORM.exec(header);
  if (match === null) return null;
  const [, keyId, timestamp, nonce, target, bodyHash, signature] = match as unknown as [string, string, string, string, string, string, string];
  return { keyId, timestamp, nonce, target, bodyHash, signature };
}

export function writeAnswerSignature({ keyId, signature }: AnswerSignature): string {
  return `v1;key=${keyId};sig=${signature}`;
}

export function readAnswerSignature(header: string): AnswerSignature | null {
  const [, keyId, signature] = ANSWER_FORM.exec(header) ?? [];
  return keyId === undefined || signature === undefined ? null : { keyId, signature };
}

/** SHA-256 in hex; of a text, that of its UTF-8. */
export const bodyHashOf = (body: string | Uint8Array): string => hash("sha256", body, "hex");
