import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { assertFinds, effect, emit, found, heard, violations } from "../planted.js";
import { checkAtomicity, unheard } from "./transactions.js";
import type { Effect, Emit, Entry } from "../history.js";

const NODES = [{ name: "n2" }];
const transaction = (seq: number, error: string | null = null): Emit => emit(seq, { event: "transaction", error });
const mark = (seq: number): Effect => effect(seq, { event: "mark", node: "n1" });
const OUTCOMES: Readonly<Record<string, (seq: number) => Entry>> = {
  "transaction": (seq) => effect(seq, { event: "transaction" }),
  "job": (seq) => effect(seq, { event: "job" }),
  "follow-up": (seq) => effect(seq, { event: "follow-up" }),
  "broadcast on n2": (seq) => heard(seq, { event: "transaction" }),
};
const arrived = (seq: number, except?: string): Entry[] => Object.entries(OUTCOMES).flatMap(([name, outcome]) => (name === except ? [] : [outcome(seq)]));
const CUT = "DATABASE_UNAVAILABLE: gone";

/** One that committed, one that was rolled back, and one of each outcome that was hit. */
const CLEAN = [transaction(1), mark(1), ...arrived(1), transaction(2, "ROLLED_BACK"), transaction(3, CUT), transaction(4, CUT), mark(4), ...arrived(4)];

describe("the checker of transactions", () => {
  const atomicity = (...entries: readonly Entry[]): string[] => violations(entries, (findings) => checkAtomicity(findings, NODES));
  const withClean = (...entries: readonly Entry[]): string[] => atomicity(...CLEAN, ...entries);

  test("is content where all comes once of what committed, whatever the caller was told, and nothing of the rest", () => assertFinds(withClean()));
  test("finds one that said it had committed, and had not", () => assertFinds(withClean(transaction(9)), /said they had committed, and had not: 1, as n1\/9/));
  test("finds one that was rolled back, and committed", () => {
    assertFinds(withClean(transaction(9, "ROLLED_BACK"), mark(9), ...arrived(9)), /rolled back, and committed: 1, as n1\/9/);
  });
  for (const [name, outcome] of Object.entries(OUTCOMES)) {
    test(`finds a ${name} that never came`, () => {
      assertFinds(withClean(transaction(9), mark(9), ...arrived(9, name)), new RegExp(`whose ${name} never came: 1, as n1/9`));
      assertFinds(withClean(transaction(9, CUT), mark(9), ...arrived(9, name)), new RegExp(`whose ${name} never came: 1, as n1/9`));
    });
    test(`finds a ${name} of one that did not commit`, () => {
      assertFinds(withClean(transaction(9, "ROLLED_BACK"), outcome(9)), new RegExp(`whose ${name} came, and that did not commit: 1, as n1/9`));
    });
    test(`finds a ${name} that came twice`, () => assertFinds(withClean(outcome(1)), new RegExp(`1 times a ${name} .* once more`)));
  }
  test("finds a transaction that committed twice, though one event arrived", () => assertFinds(withClean(mark(1)), /committed more than once: 1, as n1\/1/));
  test("does not take for heard by one node what another has heard", () => {
    assert.deepEqual(unheard(found([mark(1), heard(1, { event: "transaction", node: "n3" })]), { name: "n2" }), ["n1/1"]);
  });
  test("is not content where none committed", () => assertFinds(atomicity(transaction(3, CUT)), /no transaction committed/));
  test("is not content where no fault hit one", () => {
    assertFinds(atomicity(transaction(1), mark(1), ...arrived(1), transaction(2, "ROLLED_BACK")), /no transaction was hit/);
    assertFinds(atomicity(transaction(1), mark(1), ...arrived(1), emit(1, { error: CUT })), /no transaction was hit/);
  });
});
