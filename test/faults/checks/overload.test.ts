import { describe, test } from "node:test";
import { assertFinds, call, violations } from "../planted.js";
import { checkGoodput, checkMemory, checkRefusals, type Holdings } from "./overload.js";
import type { Call } from "../history.js";

const many = (count: number, more: Partial<Call> = {}): Call[] => Array.from({ length: count }, () => call({ startedAt: 0, endedAt: 10, ...more }));
const refused = (tookMs = 1): Partial<Call> => ({ endedAt: tookMs, ranOn: null, error: "OVERLOADED: full", retryable: true });
const late: Partial<Call> = { endedAt: 1_000, ranOn: null, error: "TIMEOUT: late" };

describe("the checker of goodput", () => {
  const goodput = (...calls: readonly Call[]): string[] => violations(calls, (findings) => checkGoodput(findings, calls, 100, 0, 1_000));

  test("is content with 80 % of the peak", () => assertFinds(goodput(...many(80), ...many(100, refused()))));
  test("finds less", () => assertFinds(goodput(...many(79)), /goodput is 79 calls\/s, its peak was 100/));
  test("counts no call that failed", () => assertFinds(goodput(...many(79), ...many(21, refused())), /goodput is 79/));
  test("counts no call that came back after the load had ended", () => assertFinds(goodput(...many(79), ...many(21, { endedAt: 1_001 })), /goodput is 79/));
});

describe("the checker of refusals", () => {
  const refusals = (...calls: readonly Call[]): string[] => violations(calls, (findings) => checkRefusals(findings, calls, 1_000));

  test("is content where what is not served is refused at once, but for a few", () => {
    assertFinds(refusals(...many(50), ...many(30, refused()), ...many(15, refused(300)), ...many(5, late)));
  });
  test("is not content where nothing was refused, though calls ran out of time", () => {
    assertFinds(refusals(...many(100)), /no call was refused/);
    assertFinds(refusals(...many(95), ...many(5, late)), /no call was refused/);
  });
  test("finds too many that learned only at their deadline", () => {
    assertFinds(refusals(...many(50), ...many(44, refused()), ...many(6, late)), /6 of 100 calls found out only at their deadline/);
  });
  test("finds refusals that took long", () => assertFinds(refusals(...many(49, refused()), ...many(51, refused(21))), /half of the refusals took 21 ms/));
  test("finds one in a hundred that took much longer", () => {
    assertFinds(refusals(...many(199, refused()), ...many(1, refused(900))));
    assertFinds(refusals(...many(98, refused()), ...many(2, refused(851))), /one refusal in a hundred took 851 ms/);
  });
  test("finds one that is not to be tried again", () => {
    assertFinds(refusals(...many(9, refused()), call({ ...refused(), startedAt: 0, retryable: null })), /not to be retried: 1/);
  });
  test("finds calls that failed of something else", () => {
    assertFinds(refusals(...many(50), ...many(5, refused()), call({ error: "CALL_FAILED: broken", ranOn: null })), /something else: 1, as .*CALL_FAILED/);
  });
});

describe("the checker of memory", () => {
  const MIB = 2 ** 20;
  const flat = { before: [100 * MIB, 100 * MIB], halfway: [140 * MIB, 140 * MIB], atEnd: [154 * MIB, 130 * MIB], after: [149 * MIB, 80 * MIB] };
  const memory = (more: Partial<Holdings>): string[] => violations([], (findings) => checkMemory(findings, { ...flat, ...more }));

  test("is content where load takes some, and no more as it lasts", () => assertFinds(memory({})));
  test("finds a process that has grown", () => assertFinds(memory({ after: [100 * MIB, 150 * MIB] }), /memory has grown by 0.0 and 50.0 MiB/));
  test("finds a process that goes on to grow", () => assertFinds(memory({ atEnd: [140 * MIB, 155 * MIB] }), /second half has grown by 0.0 and 15.0 MiB/));
});
