import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { assertFinds, call, emit, found, heard, violations } from "../planted.js";
import { callRate, checkRate, emittersSince, hearersSince } from "./recovery.js";

describe("the checker of the rate of calls", () => {
  const rate = (before: number, during: number): string[] => violations([], (findings) => checkRate(findings, before, during));

  test("is content with 90 % of the rate before", () => assertFinds(rate(100, 90)));
  test("finds less", () => assertFinds(rate(100, 89), /calls fell from 100 to 89 a second/));
  test("is not content where no call came back before", () => assertFinds(rate(0, 0), /before the outage/));
  test("counts what came back meanwhile, and did not fail", () => {
    const ends = [999, 1_000, 2_000, 3_000, 3_001].map((endedAt) => call({ endedAt }));
    assert.equal(callRate(found([...ends, call({ endedAt: 1_500, error: "TIMEOUT: late" })]), 1_000, 3_000), 1.5);
  });
});

describe("a node is back", () => {
  const broadcast = emit(1, { event: "broadcast", node: "n2", startedAt: 1_000 });

  test("as emitter with what it began since, and was accepted", () => {
    const findings = found([
      emit(1, { node: "n1", startedAt: 1_000 }), broadcast, emit(1, { node: "n3", startedAt: 999, endedAt: 1_001 }), emit(1, { node: "n4", startedAt: 1_000, error: "TIMEOUT: late" }),
    ]);
    assert.deepEqual([...emittersSince(findings, 1_000)], ["n1", "n2"]);
  });

  test("as hearer with what was emitted since, not with what it hears late", () => {
    const old = emit(2, { event: "broadcast", node: "n2", startedAt: 999 });
    const findings = found([broadcast, old, heard(1, { node: "n1", emitter: "n2" }), heard(2, { node: "n3", emitter: "n2", at: 1_500 })]);
    assert.deepEqual([...hearersSince(findings, 1_000)], ["n1"]);
  });
});
