import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { checkFencing } from "./audit.js";
import { checkBroadcasts, checkCalls, checkEmits, checkExactlyOnce, checkPunctuality, checkQueries } from "./checks.js";
import { GROUPS } from "./protocol.js";
import type { Call, Effect, Emit, Entry, Transition } from "./history.js";
import { assertFinds, call, effect, emit, found, heard, query, step, violations } from "./planted.js";

describe("the checker of balanced events", () => {
  const ran = (seq: number, more: Partial<Effect> = {}): Effect[] => GROUPS.map((group) => effect(seq, { group, ...more }));

  test("is content with one effect in each group for each accepted event, and any for a failed emit", () => {
    const failed = { error: "DATABASE_UNAVAILABLE: gone" };
    assertFinds(violations([emit(1), emit(2, failed), emit(3, failed), ...ran(1), effect(3)], checkExactlyOnce));
  });

  test("finds an accepted event without effect in a group, though another has it", () => {
    assertFinds(violations([emit(1), ...ran(1), emit(2), effect(2)], checkExactlyOnce), /without effect in group mirror: 1/);
    assertFinds(violations([emit(1), ...ran(1), emit(2), effect(2, { group: "mirror" })], checkExactlyOnce), /without effect in group probe: 1/);
  });

  test("finds an event with two effects in a group, even of an emit that failed", () => {
    const failed = emit(2, { error: "TIMEOUT: late" });
    assertFinds(violations([emit(1), ...ran(1), failed, effect(2), effect(2, { node: "n3" })], checkExactlyOnce), /more than one effect in group probe: 1/);
    assertFinds(violations([emit(1), ...ran(1), effect(1, { group: "mirror" })], checkExactlyOnce), /more than one effect in group mirror: 1/);
  });

  test("is not content where no event was accepted", () => {
    assertFinds(violations([emit(1, { error: "TIMEOUT: late" })], checkExactlyOnce), /no balanced event was accepted/);
  });
});

describe("the checker of fences", () => {
  const names = new Map([["id1", "n1"], ["id2", "n2"]]);
  const fences = (...steps: readonly Transition[]): string[] => violations(steps, (findings) => checkFencing(findings, names));
  const claim = step("claim", { holder: null, successor: "id1", expired: null });

  test("is content where holders extend and end, and others take over what has expired", () => {
    const takeover = [step("release", { by: "n2", expired: true }), step("claim", { by: "n2", holder: null, successor: "id2" }), step("end", { by: "n2", holder: "id2" })];
    assertFinds(fences(claim, step("extend", { kept: true, successor: "id1" }), ...takeover));
  });

  test("finds the end of a job by a node that had lost it", () => assertFinds(fences(claim, step("end", { by: "n2" })), /did not hold them: 1/));
  test("finds a takeover before the lease has run out", () => assertFinds(fences(claim, step("release", { by: "n2" }), step("end")), /did not hold/));
  test("finds a claim of what another holds", () => assertFinds(fences(claim, step("extend", { kept: false, successor: "id1" }), step("end")), /did not hold/));
  test("finds a claim in the name of another node", () => assertFinds(fences(step("claim", { by: "n2", successor: "id1" }), step("end")), /did not hold/));
  test("finds the end of a job that nobody held, whatever its lease", () => assertFinds(fences(claim, step("end"), step("end", { by: "n2", holder: null, expired: true })), /did not hold/));
  test("finds a job that vanished", () => assertFinds(fences(claim), /never saw end: 1/));
});

describe("the checker of broadcasts", () => {
  const broadcast = (seq: number): Emit => emit(seq, { event: "broadcast" });
  const listening = [{ node: { name: "n2" }, from: 0, to: Infinity }];
  const broadcasts = async (...entries: readonly Entry[]): Promise<string[]> => {
    const findings = found(entries);
    await checkBroadcasts(findings, listening, "broadcast", 0);
    return findings.violations;
  };

  test("finds one that was heard too late", () => {
    const findings = found([broadcast(1), heard(1, { at: 9_000 })]);
    checkPunctuality(findings, 6_000);
    assertFinds(findings.violations, /later than 6000 ms/);
    assertFinds(violations([broadcast(1), heard(1)], (punctual) => checkPunctuality(punctual, 6_000)));
  });
  test("is content with each once and in order", async () => assertFinds(await broadcasts(broadcast(1), broadcast(2), heard(1), heard(2))));
  test("is not content where none was accepted", async () => {
    assertFinds(await broadcasts(emit(1, { event: "broadcast", error: "TIMEOUT: late" })), /no broadcast event was accepted/);
  });
  test("takes for those of a node only what this node has heard", async () => {
    assertFinds(await broadcasts(broadcast(1), heard(1, { node: "n3" })), /never reached n2: 1/);
  });
  test("finds a lost one", async () => assertFinds(await broadcasts(broadcast(1), broadcast(2), heard(2)), /never reached n2: 1, as n1\/1/));
  test("finds one that came twice", async () => assertFinds(await broadcasts(broadcast(1), heard(1), heard(1)), /twice or out of order/));
  test("finds two that changed places", async () => assertFinds(await broadcasts(broadcast(1), broadcast(2), heard(2), heard(1)), /twice or out of order/));
  test("asks for none that was emitted while the node was not subscribed", async () => {
    const findings = found([broadcast(1), broadcast(900), heard(900)]);
    await checkBroadcasts(findings, [{ node: { name: "n2" }, from: 500, to: Infinity }], "broadcast", 0);
    assertFinds(findings.violations);
  });
});

describe("the checker of calls", () => {
  const failed = { error: "CALL_FAILED: dropped", ranOn: null };
  const calls = (entries: readonly Call[], troubles: readonly (readonly [number, number])[] = []): string[] =>
    violations(entries, (findings) => checkCalls(findings, entries, troubles));

  test("is content with failures in a time of trouble", () => assertFinds(calls([call(), call(failed)], [[9_000, 11_000]])));
  test("finds a failure that no fault explains", () => assertFinds(calls([call(), call(failed)]), /no fault explains: 1/));
  test("finds a failure in spite of retries, in a time of trouble too", () => {
    assertFinds(calls([call(), call({ ...failed, attempts: 2 })], [[9_000, 11_000]]), /with retries: 1/);
  });
  test("is not content where nothing has come back", () => assertFinds(calls([call(failed)], [[9_000, 11_000]]), /no call has come back/));
  test("finds a failure that was over before the trouble began, or began after it was over", () => {
    assertFinds(calls([call(), call({ ...failed, startedAt: 8_000, endedAt: 8_900 })], [[9_000, 11_000]]), /no fault explains: 1/);
    assertFinds(calls([call(), call({ ...failed, startedAt: 11_001, endedAt: 11_002 })], [[9_000, 11_000]]), /no fault explains: 1/);
  });
  test("leaves failures of a starved machine unjudged, and is not content with many of them", () => {
    const stalls = ["n1", "n2"].map((node) => ({ kind: "stall" as const, node, from: 9_700, to: 9_910 }));
    const many = Array.from({ length: 100 }, () => call());
    const findings = found([...many, call(failed), ...stalls]);
    checkCalls(findings, findings.history.all("call"), []);
    assertFinds(findings.violations);
    assert.equal(findings.unjudged.length, 1);
    checkCalls(findings, [call(), call(failed)], []);
    assertFinds(findings.violations, /2 of 2 calls cannot be judged/);
  });
  test("counts what several processes missed at the same time once", () => {
    const stalls = ["n1", "n2", "n3", "harness"].map((node) => ({ kind: "stall" as const, node, from: 9_900, to: 9_960 }));
    const findings = found([call(), call(failed), ...stalls]);
    assert.equal(findings.took(9_800, 10_000), 140);
    checkCalls(findings, findings.history.all("call"), []);
    assertFinds(findings.violations, /no fault explains: 1/);
  });
});

describe("the checkers of what needs the database", () => {
  test("take clear errors in time", () => {
    assertFinds(violations([query(), query({ error: "OVERLOADED: pool" })], (findings) => checkQueries(findings, 800, 100)));
    assertFinds(violations([emit(1, { error: "DATABASE_UNAVAILABLE: gone" })], checkEmits));
  });
  test("find an unclear error", () => {
    assertFinds(violations([query(), query({ error: "undefined: Connection terminated" })], (findings) => checkQueries(findings, 800, 100)), /without a clear error/);
    assertFinds(violations([emit(1, { error: "57P01: terminating" })], checkEmits), /without a clear error/);
  });
  test("take it that a transaction was rolled back, or is in doubt, and an emit is neither", () => {
    const [rolledBack, inDoubt] = [{ error: "ROLLED_BACK" }, { error: "COMMIT_UNKNOWN: lost during COMMIT" }];
    assertFinds(violations([emit(1, { event: "transaction", ...rolledBack }), emit(2, { event: "transaction", ...inDoubt })], checkEmits));
    assertFinds(violations([emit(1, rolledBack), emit(2, inDoubt)], checkEmits), /without a clear error: 2/);
  });
  test("find an emit that took longer than its budget, accepted or not", () => {
    assertFinds(violations([emit(1, { endedAt: 10_400 })], checkEmits));
    assertFinds(violations([emit(1, { endedAt: 10_600 }), emit(2, { endedAt: 30_000, error: "DATABASE_UNAVAILABLE: gone" })], checkEmits), /longer than their budget: 2/);
  });
  test("take it that a node which stops refuses emits, and one that does not stop does not", () => {
    const refused = [emit(1, { error: "OUTBOX_CLOSED: stopping" })];
    assertFinds(violations(refused, (findings) => checkEmits(findings, true)));
    assertFinds(violations(refused, checkEmits), /without a clear error: 1/);
  });
  test("are not content where no question was answered", () => {
    assertFinds(violations([query({ error: "TIMEOUT: late" })], (findings) => checkQueries(findings, 800, 100)), /no question was answered/);
  });
  test("find a question that took too long", () => {
    assertFinds(violations([query({ endedAt: 1_000, error: "TIMEOUT: late" }), query()], (findings) => checkQueries(findings, 800, 100)), /longer than their budget/);
  });
});
