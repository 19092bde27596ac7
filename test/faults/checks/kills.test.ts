import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { GROUPS, LEASE_MS } from "../protocol.js";
import { assertFinds, call, effect, emit, found, step, violations } from "../planted.js";
import { callsUntilKilled, checkInFlight, checkOrphans, checkRouting, checkTakeover, hasLostJob, type Kill } from "./kills.js";
import type { Call, Entry, Transition } from "../history.js";

const AT = 10_000;
const kill: Kill = { at: AT, victim: { name: "n1", nodeId: "id1" }, survivors: [{ name: "n2", nodeId: "id2" }, { name: "n3", nodeId: "id3" }] };

describe("the checker of calls in flight at a kill", () => {
  const cut = (more: Partial<Call> = {}): Call =>
    call({ node: "n2", startedAt: AT - 100, endedAt: AT + 20, ranOn: null, error: "CALL_FAILED: broken", retryable: true, failedOn: "id1", ...more });
  const inFlight = (...calls: readonly Call[]): string[] => violations(calls, (findings) => checkInFlight(findings, kill));

  test("is content where those on the node fail at once, to be retried, and others come back", () => {
    assertFinds(inFlight(cut(), cut({ node: "n3" }), call({ node: "n2", startedAt: AT - 100, endedAt: AT + 20 })));
  });
  test("leaves alone what the killed node itself called, what may be tried again, and what was over or began later", () => {
    const broken = { error: "UNKNOWN: odd", failedOn: "id3", retryable: false };
    const others = [cut({ node: "n1", ...broken }), cut({ attempts: 2, ...broken }), cut({ endedAt: AT - 1, ...broken }), cut({ startedAt: AT + 300, endedAt: AT + 310, ...broken })];
    assertFinds(inFlight(cut(), ...others));
  });
  test("is not content where no call was hit", () => assertFinds(inFlight(call({ node: "n2", startedAt: AT - 1, endedAt: AT + 9 })), /no call was under way/));
  test("finds a call to another node that failed", () => assertFinds(inFlight(cut(), cut({ failedOn: "id3" })), /to other nodes that failed with a kill: 1/));
  test("finds a failure that does not say on which node", () => assertFinds(inFlight(cut(), cut({ failedOn: null })), /to other nodes that failed with a kill: 1/));
  test("finds a call that failed, and began when the node was dead", () => {
    assertFinds(inFlight(cut(), cut({ startedAt: AT + 160, endedAt: AT + 170 })), /not in flight when a node was killed: 1/);
  });
  test("finds a call that hung", () => assertFinds(inFlight(cut(), cut({ endedAt: AT + 300 })), /hung on a killed node: 1/));
  test("finds a call that hung until its deadline", () => {
    assertFinds(inFlight(cut(), cut({ endedAt: AT + 4_900, error: "TIMEOUT: late" })), /hung on a killed node: 1/, /with another error: 1/);
  });
  test("finds a failure of another kind", () => assertFinds(inFlight(cut(), cut({ error: "undefined: socket hang up" })), /with another error: 1/));
  test("finds a failure that is not to be retried", () => {
    assertFinds(inFlight(cut(), cut({ retryable: false }), cut({ retryable: null })), /failed for good: 2/);
  });
});

test("calls count of every node that has run, and of a killed one until then", () => {
  const [before, after, survivor, stranger] = [
    call({ node: "n1", endedAt: AT }), call({ node: "n1", endedAt: AT + 1 }), call({ node: "n2", endedAt: AT + 1 }), call({ node: "n9", endedAt: AT }),
  ];
  assert.deepEqual(callsUntilKilled(found([before, after, survivor, stranger]), [kill.victim, ...kill.survivors], [kill]), [before, survivor]);
});

describe("the checker of routing after a kill", () => {
  const late = (more: Partial<Call> = {}): Call => call({ node: "n2", ranOn: "n3", startedAt: AT + 1_000, endedAt: AT + 1_210, ...more });
  const routing = (...calls: readonly Call[]): string[] => violations(calls, (findings) => checkRouting(findings, kill, 200));

  test("is content with calls that come back at once, and leaves earlier ones alone", () => assertFinds(routing(late(), late({ startedAt: AT + 900, error: "CALL_FAILED: broken" }))));
  test("finds a call that fails", () => assertFinds(routing(late({ ranOn: null, error: "CALL_FAILED: broken" })), /a second later: 1/));
  test("finds a call that took a detour", () => assertFinds(routing(late(), late({ endedAt: AT + 1_400 })), /a second later: 1/));
  test("is not content where nobody called", () => assertFinds(routing(late({ startedAt: AT + 900 }), late({ node: "n1" })), /no call began/));
});

describe("the checker of takeovers", () => {
  const LIMIT_MS = LEASE_MS + 1_000;
  const before = emit(1, { startedAt: AT - 10, endedAt: AT - 5 });
  const takeover = (...entries: readonly Entry[]): string[] => violations(entries, (findings) => checkTakeover(findings, kill));

  const ran = (seq: number, at: number): Entry[] => GROUPS.map((group) => effect(seq, { group, at }));

  test("is content with events that ran before the kill or soon after it", () => {
    assertFinds(takeover(before, ...ran(1, AT + LIMIT_MS), emit(2, { startedAt: AT - 900, endedAt: AT - 890 }), ...ran(2, AT - 800)));
  });
  test("asks for no event that was accepted later, or failed", () => {
    assertFinds(takeover(emit(1, { startedAt: AT, endedAt: AT + 1 }), ...ran(1, AT + 9_000), emit(2, { startedAt: AT - 9, endedAt: AT - 8, error: "TIMEOUT: late" })));
  });
  test("finds one that ran too late", () => assertFinds(takeover(before, ...ran(1, AT + LIMIT_MS + 1)), /probe that ran too late .*: 1/, /mirror that ran too late .*: 1/));
  test("finds one that never ran in a group", () => assertFinds(takeover(before, effect(1, { at: AT })), /mirror that ran too late .*: 1/));
  test("does not count the time in which the machine let processes wait", () => {
    const stall = { kind: "stall" as const, node: "n2", from: AT + 100, to: AT + 300 };
    assertFinds(takeover(before, ...ran(1, AT + LIMIT_MS + 150), stall));
    assertFinds(takeover(before, ...ran(1, AT + LIMIT_MS + 250), stall), /probe that ran too late/, /mirror that ran too late/);
  });
});

describe("the checker of orphaned jobs", () => {
  const claim = step("claim", { holder: null, successor: "id1", at: AT - 500 });
  const taken = step("release", { by: "n2", expired: true, at: AT + LEASE_MS });
  const orphans = (...steps: readonly Transition[]): string[] => violations(steps, (findings) => checkOrphans(findings, [kill]));

  test("is content where others take within the lease what the node held", () => assertFinds(orphans(claim, step("extend", { kept: true, at: AT - 100 }), taken)));
  test("finds one that was taken too late", () => assertFinds(orphans(claim, { ...taken, at: AT + LEASE_MS + 151 }), /later than leaseMs: 1/));
  test("finds one that nobody took, and names it", () => assertFinds(orphans(claim, { ...claim, job: "2" }, { ...taken, job: "2" }), /later than leaseMs: 1, as .*"job":"1"/));
  test("is not content where the node held none", () => {
    assertFinds(orphans({ ...claim, successor: "id2" }), /held a job/);
    assertFinds(orphans(claim, step("end", { at: AT - 1 })), /held a job/);
    assertFinds(orphans({ ...claim, at: AT + 1 }), /held a job/);
  });
  test("takes what the node had given back, and claimed again, for held", () => {
    const again = [step("release", { at: AT - 400 }), { ...claim, at: AT - 300 }];
    assertFinds(orphans(claim, ...again), /later than leaseMs: 1/);
  });
  test("takes what another claimed since for held no more", () => {
    const others = [step("release", { at: AT - 400 }), { ...claim, successor: "id2", by: "n2", at: AT - 300 }];
    assertFinds(orphans(claim, ...others), /held a job/);
  });
  test("leaves alone what the node completed just before the signal reached it", () => {
    const completed = { ...claim, job: "2" };
    assertFinds(orphans(claim, completed, step("end", { job: "2", at: AT + 2 }), taken));
    assertFinds(orphans(claim, step("end", { at: AT + 2 })), /held a job/);
  });
});

test("a job counts as lost where another node takes it, from that node, since then", () => {
  const lost = (more: Partial<Transition>): boolean => hasLostJob(found([step("release", { by: "n2", holder: "id1", at: AT + 1, ...more })]), kill.victim, AT);
  assert.deepEqual(
    [lost({}), lost({ by: "n1" }), lost({ holder: "id3" }), lost({ at: AT - 1 }), lost({ change: "end" })],
    [true, false, false, false, false],
  );
});
