import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { assertFinds, found } from "../planted.js";
import { OFFLINE_AFTER_MS } from "../protocol.js";
import { Missed, checkConvergence } from "./convergence.js";
import { now } from "../history.js";

const LIMIT_MS = 400;

describe("the checker of convergence", () => {
  /** Of nodes that agree where `agreesAt` says so, in ms after the last fault. */
  const convergence = async (agreesAt: (ms: number) => boolean): Promise<string[]> => {
    const findings = found([]);
    const from = now();
    await checkConvergence(findings, async () => agreesAt(now() - from), from, LIMIT_MS);
    return findings.violations;
  };

  test("is content with nodes that agree within the limit", async () => assertFinds(await convergence((ms) => ms > 160)));
  test("finds nodes that agree later", async () => assertFinds(await convergence((ms) => ms > 1_000), /did not agree on their peers \d+ ms after the last fault; the limit is 400 ms/));
  test("finds nodes that agree at first and no more when the damage shows", async () => {
    assertFinds(await convergence((ms) => ms < 160 || ms > 1_000), /did not agree/);
  });
});

describe("a killed node", () => {
  const AT = 10_000;
  const missedIn = (from: number, ...unreadable: readonly (readonly [from: number, to: number])[]): number => {
    const missed = new Missed();
    missed.killed(AT);
    for (const [began, ended] of unreadable) missed.unreadable(began, ended);
    return missed.inMs(from);
  };

  test("must be missed offlineAfterMs later", () => {
    assert.equal(missedIn(AT), OFFLINE_AFTER_MS);
    assert.equal(missedIn(AT + 300), OFFLINE_AFTER_MS - 300);
    assert.equal(missedIn(AT + OFFLINE_AFTER_MS + 1), 0);
  });
  test("must be missed offlineAfterMs after Postgres is back, where it went before that was over, and not where it went later", () => {
    assert.equal(missedIn(AT + 1_400, [AT + 900, AT + 1_400]), OFFLINE_AFTER_MS);
    assert.equal(missedIn(AT + 1_600, [AT + 1_100, AT + 1_600]), 0);
    assert.equal(missedIn(AT + 3_000, [AT + 900, AT + 1_400], [AT + 2_000, AT + 3_000]), OFFLINE_AFTER_MS);
  });
});
