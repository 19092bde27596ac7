import { describe, test } from "node:test";
import { assertFinds, effect, emit, violations } from "../planted.js";
import { checkAtomicity } from "./transactions.js";
import type { Effect, Emit, Entry } from "../history.js";

const transaction = (seq: number, error: string | null = null): Emit => emit(seq, { event: "transaction", error });
const mark = (seq: number): Effect => effect(seq, { event: "mark", node: "n1" });
const arrived = (seq: number): Effect => effect(seq, { event: "transaction" });
const CUT = "DATABASE_UNAVAILABLE: gone";

/** One that committed, one that was rolled back, and one of each outcome that was hit. */
const CLEAN = [transaction(1), mark(1), arrived(1), transaction(2, "ROLLED_BACK"), transaction(3, CUT), transaction(4, CUT), mark(4), arrived(4)];

describe("the checker of transactions", () => {
  const atomicity = (...entries: readonly Entry[]): string[] => violations(entries, checkAtomicity);
  const withClean = (...entries: readonly Entry[]): string[] => atomicity(...CLEAN, ...entries);

  test("is content where events arrive once of what committed, whatever the caller was told, and of nothing else", () => assertFinds(withClean()));
  test("finds one that said it had committed, and had not", () => assertFinds(withClean(transaction(9)), /said they had committed, and had not: 1, as n1\/9/));
  test("finds one that was rolled back, and committed", () => {
    assertFinds(withClean(transaction(9, "ROLLED_BACK"), mark(9), arrived(9)), /rolled back, and committed: 1, as n1\/9/);
  });
  test("finds an event that never arrived", () => {
    assertFinds(withClean(transaction(9), mark(9)), /never arrived: 1, as n1\/9/);
    assertFinds(withClean(transaction(9, CUT), mark(9)), /never arrived: 1, as n1\/9/);
  });
  test("finds an event of a transaction that did not commit", () => {
    assertFinds(withClean(transaction(9, "ROLLED_BACK"), arrived(9)), /did not commit: 1, as n1\/9/);
    assertFinds(withClean(transaction(9, CUT), arrived(9)), /did not commit: 1, as n1\/9/);
  });
  test("finds an event that arrived twice", () => assertFinds(withClean(arrived(1)), /more than one effect: 1/));
  test("finds a transaction that committed twice, though one event arrived", () => assertFinds(withClean(mark(1)), /committed more than once: 1, as n1\/1/));
  test("is not content where none committed", () => assertFinds(atomicity(transaction(3, CUT)), /no transaction committed/));
  test("is not content where no fault hit one", () => {
    assertFinds(atomicity(transaction(1), mark(1), arrived(1), transaction(2, "ROLLED_BACK")), /no transaction was hit/);
    assertFinds(atomicity(transaction(1), mark(1), arrived(1), emit(1, { error: CUT })), /no transaction was hit/);
  });
});
