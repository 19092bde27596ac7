import { describe, test } from "node:test";
import { assertFinds, found } from "../planted.js";
import { checkConvergence } from "./convergence.js";
import { now } from "../history.js";

const LIMIT_MS = 100;

describe("the checker of convergence", () => {
  /** Of nodes that agree where `agreesAt` says so, in ms after the last fault. */
  const convergence = async (agreesAt: (ms: number) => boolean): Promise<string[]> => {
    const findings = found([]);
    const from = now();
    await checkConvergence(findings, async () => agreesAt(now() - from), from, LIMIT_MS);
    return findings.violations;
  };

  test("is content with nodes that agree within the limit", async () => assertFinds(await convergence((ms) => ms > 40)));
  test("finds nodes that agree later", async () => assertFinds(await convergence((ms) => ms > 250), /did not agree on their peers \d+ ms after the last fault; the limit is 100 ms/));
  test("finds nodes that agree at first and no more when the damage shows", async () => {
    assertFinds(await convergence((ms) => ms < 40 || ms > 250), /did not agree/);
  });
});
