import { describe, test } from "node:test";
import { assertFinds, call, emit, found, violations } from "../planted.js";
import { checkOmissions, checkRates } from "./load.js";
import type { Call, Emit, Entry } from "../history.js";

const many = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));

describe("the checker of the load that was made", () => {
  const LEAST = { calls: 50, events: 20 };
  const calls = (count: number, from = 1_000): Call[] => many(count, (n) => call({ startedAt: from + n }));
  const emits = (count: number, from = 1_000): Emit[] => many(count, (n) => emit(n, { startedAt: from + n }));
  const rates = (...entries: readonly Entry[]): string[] => violations(entries, (findings) => checkRates(findings, [[1_000, 2_000], [3_000, 3_500]], LEAST));

  test("is content with the rates in each time", () => assertFinds(rates(...calls(50), ...emits(20), ...calls(25, 3_000), ...emits(10, 3_000))));
  test("finds too few calls, though there were enough at another time", () => {
    assertFinds(rates(...calls(90), ...emits(20), ...calls(24, 3_000), ...emits(10, 3_000)), /less load than 50 calls\/s and 20 events\/s: 1, as 48 calls\/s and 20 events\/s/);
  });
  test("finds too few events", () => assertFinds(rates(...calls(50), ...emits(19), ...calls(25, 3_000), ...emits(10, 3_000)), /as 50 calls\/s and 19 events\/s/));
  test("counts nothing that began outside these times", () => assertFinds(rates(...calls(50, 2_000), ...emits(20, 2_000)), /events\/s: 2,/));
  test("asks for no load while the machine let nobody run", () => {
    const stall = { kind: "stall" as const, node: "n1", from: 1_100, to: 1_600 };
    assertFinds(rates(...calls(25), ...emits(10), ...calls(25, 3_000), ...emits(10, 3_000), stall));
  });
  test("is not content without a time", () => assertFinds(violations([], (findings) => checkRates(findings, [], LEAST)), /no time/));
});

describe("the checker of load that was left out", () => {
  const omission = (operations: number, node = "n1"): Entry => ({ kind: "omission", node, operations, at: 0 });

  test("is content with one in a hundred", () => assertFinds(violations([...many(100, () => call()), omission(0.5), omission(0.5)], checkOmissions)));
  test("finds more, of all nodes together", () => {
    assertFinds(violations([...many(100, () => call()), omission(1), omission(1, "n2")], checkOmissions), /2 operations were left out, beside 100 that were made/);
  });
  test("asks for none of a node that a fault froze", () => {
    const findings = found([...many(100, () => call()), omission(90)]);
    findings.frozen.push("n1");
    checkOmissions(findings);
    assertFinds(findings.violations);
  });
});
