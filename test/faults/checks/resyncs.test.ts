import { describe, test } from "node:test";
import { assertFinds, violations } from "../planted.js";
import { checkResyncs } from "./resyncs.js";
import type { Resync } from "../history.js";

const AWAY_FROM = 5_000;
const resync = (at: number, node = "n1"): Resync => ({ kind: "resync", node, at });

describe("the checker of resyncs", () => {
  const resyncs = (...entries: readonly Resync[]): string[] => violations(entries, (findings) => checkResyncs(findings, "n1", AWAY_FROM));

  test("is content where the node that was away is told when it is back", () => assertFinds(resyncs(resync(8_000))));
  test("finds that it was told after a short absence, whenever the report of it came in", () => {
    assertFinds(resyncs(resync(8_000), resync(4_000)), /had missed nothing: 1/);
  });
  test("does not take what it was told before for what it is told now", () => assertFinds(resyncs(resync(4_000)), /had missed nothing: 1/, /n1 was not told/));
  test("finds another node that was told", () => assertFinds(resyncs(resync(8_000), resync(8_000, "n2")), /that were there: 1, as .*"n2"/));
  test("finds that nobody was told", () => assertFinds(resyncs(), /n1 was not told/));
});
