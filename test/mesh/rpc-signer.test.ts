import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Candidate } from "#mesh/mesh/directory.js";
import { KeyRing } from "#mesh/mesh/mesh-key.js";
import { ReplayGuard } from "#mesh/mesh/replay-guard.js";
import { readRequestSignature, SIGNATURE_HEADER } from "#mesh/mesh/rpc-signature.js";
import { MOST_COUNTS, RequestSigner } from "#mesh/mesh/rpc-signer.js";
import { PATH } from "./rpc-fixture.js";

const peer = (nodeId: string): Candidate => ({ nodeId, advertisedUrl: "http://127.0.0.1:1", rpcPath: PATH, signed: true, wire: false, cpuLoad: 0 });

function counter(): (nodeId: string) => number {
  const signer = new RequestSigner({ nodeId: "a", keys: new KeyRing(["a-secret-of-sixteen-bytes-or-more"]), databaseNow: Date.now });
  return (nodeId) => {
    const headers = new Map(signer.prepare(peer(nodeId), { timeout: () => "1000", trace: "", body: "{}" }));
    return Number(readRequestSignature(headers.get(SIGNATURE_HEADER)!)!.nonce);
  };
}

describe("the count of signed requests to a peer", () => {
  test("goes up by one, whatever is sent to others", () => {
    const count = counter();
    const first = count("b");
    const [other] = [count("c"), count("c")];
    assert.equal(count("b"), first + 1);
    assert.equal(count("c"), other! + 2);
  });

  test("is kept for so many peers; then the oldest is forgotten, and begins again above where it stood, so that its peer takes it", () => {
    const count = counter();
    const callee = new ReplayGuard({ keepMs: 60_000 });
    const sent = [count("oldest"), count("oldest")];
    const next = count("next");
    for (let n = 2; n < MOST_COUNTS; n++) count(`peer-${n}`);
    sent.push(count("oldest"));
    assert.equal(sent[2], sent[0]! + 2, "as many as may be are kept");

    const livedUs = performance.now() * 1_000;
    count("one-too-many");
    assert.equal(count("next"), next + 1, "no other is forgotten");
    sent.push(count("oldest"), count("oldest"));
    assert.ok(sent[3]! >= livedUs && sent[3]! > sent[2]! + 1, `${sent[3]} after ${sent[2]}: it has begun again`);
    assert.equal(sent[4], sent[3]! + 1);
    for (const nonce of sent) assert.equal(callee.take("a", nonce), "new");
  });
});
