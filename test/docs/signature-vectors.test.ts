import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { KeyRing } from "#mesh/mesh/mesh-key.js";
import { answerText, bodyHashOf, readRequestSignature, requestText, writeAnswerSignature, writeRequestSignature } from "#mesh/mesh/rpc-signature.js";
import { signAnswer, SignatureVerifier } from "#mesh/mesh/rpc-verifier.js";
import { canonicalAnswer, canonicalRequest, keyId, sha256, signatureHeader, signatureOf } from "../mesh/signing.js";

interface Vector {
  readonly secret: string;
  readonly keyId: string;
  readonly request: Proof & { readonly path: string; readonly caller: string; readonly target: string; readonly timestamp: number; readonly nonce: number; readonly timeout: string };
  readonly answer: Proof & { readonly status: number };
}

interface Proof {
  readonly body: string;
  readonly bodyHash: string;
  readonly canonical: string;
  readonly signature: string;
  readonly header: string;
}

const page = await readFile(join(resolve(import.meta.dirname, "../../.."), "docs/reference/rpc.md"), "utf8");
const vectors = JSON.parse(/^```json\n([\s\S]*?)\n```$/m.exec(page)![1]!) as Vector[];

test("the page has vectors, with and without the header that may be missing", () => {
  assert.deepEqual(vectors.map(({ request }) => request.timeout !== ""), [true, false]);
});

for (const { secret, keyId: id, request, answer } of vectors) {
  test(`what the page says of the key "${secret}" can be computed from its text alone`, () => {
    assert.equal(keyId(secret), id);
    assert.deepEqual([sha256(request.body), canonicalRequest(request)], [request.bodyHash, request.canonical]);
    assert.deepEqual([signatureOf(secret, request.canonical), signatureHeader({ secret, ...request })], [request.signature, request.header]);
    assert.deepEqual([sha256(answer.body), canonicalAnswer(request.signature, answer.status, answer.body)], [answer.bodyHash, answer.canonical]);
    assert.deepEqual([signatureOf(secret, answer.canonical), `v1;key=${id};sig=${answer.signature}`], [answer.signature, answer.header]);
  });

  test(`and is what this package does with the key "${secret}"`, () => {
    const keys = new KeyRing([secret]);
    const key = keys.signing!;
    const { path, caller, timeout } = request;
    const fields = { keyId: key.id, timestamp: String(request.timestamp), nonce: String(request.nonce), target: request.target, bodyHash: bodyHashOf(request.body) };
    const text = requestText(path, { caller, timeout }, fields);
    assert.deepEqual([key.id, text, key.sign(text)], [id, request.canonical, request.signature]);
    assert.equal(writeRequestSignature({ ...fields, signature: key.sign(text) }), request.header);
    assert.deepEqual(readRequestSignature(request.header), { ...fields, signature: request.signature });
    assert.equal(answerText(request.signature, answer.status, bodyHashOf(answer.body)), answer.canonical);
    assert.equal(writeAnswerSignature({ keyId: key.id, signature: key.sign(answer.canonical) }), answer.header);

    const headers = { "x-chimpbase-mesh-caller": caller, ...(timeout === "" ? {} : { "x-chimpbase-mesh-timeout": timeout }) };
    const verifier = new SignatureVerifier({ nodeId: request.target, keys, databaseNow: () => request.timestamp + 30_000 });
    const { proof, fault } = verifier.verify({ url: path, headers } as unknown as IncomingMessage, request.header);
    assert.equal(fault, null);
    assert.equal(signAnswer(proof!, answer.status, answer.body), answer.header);
  });
}
