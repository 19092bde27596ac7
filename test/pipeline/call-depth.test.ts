import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshError } from "@chimpbase/mesh";
import { enterCall } from "#mesh/pipeline/call-depth.js";
import type { Scope } from "@chimpbase/mesh";

type Place = Pick<Scope, "level" | "chain">;

test("each call is one level deeper, and knows the chain that led to it", () => {
  const first = enterCall({ level: 0, chain: null }, "v1.a.x");
  const second = enterCall(first, "v1.b.y");
  assert.equal(first.level, 1);
  assert.equal(second.level, 2);
  assert.deepEqual(second.chain, { action: "v1.b.y", parent: { action: "v1.a.x", parent: null } });
});

test("the hundredth level is allowed, the next is refused with the newest part of the chain", () => {
  let place: Place = { level: 0, chain: null };
  for (let i = 1; i <= 100; i++) place = enterCall(place, `v1.a.step${i}`);
  assert.throws(() => enterCall(place, "v1.a.last"), (error) => {
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, "CALL_DEPTH");
    assert.equal(error.retryable, false);
    assert.match(error.message, /over 100: … → .*v1\.a\.step100 → v1\.a\.last$/);
    assert.ok(error.message.length < 300);
    return true;
  });
});
