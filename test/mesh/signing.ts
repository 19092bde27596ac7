import { createHash, createHmac } from "node:crypto";
import { PATH, post, type PostOptions, type RawReply } from "./rpc-fixture.js";

// Signatures as the reference describes them, made of nothing but node:crypto: a second implementation to test the first.

export interface Signed {
  readonly secret: string;
  readonly path: string;
  readonly caller: string;
  readonly target: string;
  readonly timestamp: number | string;
  readonly nonce: number | string;
  readonly timeout: string;
  readonly traceparent: string;
  readonly body: string;
}

const hmac = (secret: string, text: string) => createHmac("sha256", secret).update(text).digest();
export const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
export const keyId = (secret: string): string => hmac(secret, "chimpbase-mesh-key-id").toString("hex").slice(0, 16);

export function canonicalRequest({ path, caller, target, timestamp, nonce, timeout, body }: Omit<Signed, "secret" | "traceparent">): string {
  return ["chimpbase-mesh-rpc-v1-request", "POST", path, caller, target, timestamp, nonce, timeout, sha256(body)].join("\n");
}

export function canonicalAnswer(requestSignature: string, status: number, body: string): string {
  return ["chimpbase-mesh-rpc-v1-answer", requestSignature, status, sha256(body)].join("\n");
}

export const signatureOf = (secret: string, canonical: string): string => hmac(secret, canonical).toString("base64url");

export function signatureHeader(signed: Omit<Signed, "traceparent">): string {
  const { secret, timestamp, nonce, target, body } = signed;
  return `v1;key=${keyId(secret)};ts=${timestamp};nonce=${nonce};target=${target};body=${sha256(body)};sig=${signatureOf(secret, canonicalRequest(signed))}`;
}

export function headersFor(signed: Signed): Record<string, string> {
  const { caller, timeout, traceparent } = signed;
  return {
    "x-chimpbase-mesh-signature": signatureHeader(signed),
    "x-chimpbase-mesh-caller": caller,
    ...(timeout === "" ? {} : { "x-chimpbase-mesh-timeout": timeout }),
    ...(traceparent === "" ? {} : { traceparent }),
  };
}

/** Makes signed requests of one node, each new unless it is told otherwise. */
export class Signer {
  #nonce = 0;

  constructor(readonly secret: string, readonly target: string, readonly caller = "c") {}

  make(more: Partial<Omit<Signed, "body">> & { readonly body?: unknown } = {}): Signed {
    const { body = { actionName: "v1.t.echo", args: 1, callerNodeId: "c", deadlineMs: 1000 }, ...rest } = more;
    return {
      secret: this.secret, path: PATH, caller: this.caller, target: this.target, timestamp: Date.now(), nonce: ++this.#nonce, timeout: "1000", traceparent: "",
      ...rest, body: typeof body === "string" ? body : JSON.stringify(body),
    };
  }
}

export interface SentSigned extends RawReply {
  /** Whether the answer is signed, and fits this request. */
  readonly signed: boolean;
}

/** Sends a request as it was signed, but for what `sent` changes on the way. */
export async function postSigned(node: { readonly port: number }, signed: Signed, sent: PostOptions & { readonly body?: string } = {}): Promise<SentSigned> {
  const { body = signed.body, ...options } = sent;
  const headers = { ...headersFor(signed), ...options.headers };
  const reply = await post(node, body, { token: null, path: signed.path, ...options, headers });
  return { ...reply, signed: isSignedFor(reply, signed) };
}

export function isSignedFor({ headers, status, text }: RawReply, signed: Signed): boolean {
  const sent = signatureOf(signed.secret, canonicalRequest(signed));
  return headers["x-chimpbase-mesh-signature"] === `v1;key=${keyId(signed.secret)};sig=${signatureOf(signed.secret, canonicalAnswer(sent, status, text))}`;
}
