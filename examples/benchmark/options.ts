import { parseArgs } from "node:util";
import type { Sizes } from "./bed.js";

export interface Options {
  /** Names of scenarios; empty: all. */
  readonly only: readonly string[];
  readonly sizes: Sizes;
  readonly markdown: string | undefined;
  readonly json: string | undefined;
  readonly svg: string | undefined;
  readonly help: boolean;
}

export const USAGE = `npm run bench -- [options]
  --only a,b       only these scenarios
  --quick          fewer and shorter rounds on smaller data: whether it works, not how fast it is
  --rounds N       rounds of each measurement (5; 2 with --quick)
  --markdown FILE  writes a table
  --json FILE      writes every figure of every round
  --svg DIR        writes a bar chart for each scenario
  --help           this text and the scenarios
`;

const MOST_ROUNDS = 100;

/** Throws an `Error` that names the option. */
export function readOptions(args: readonly string[], scenarios: readonly string[]): Options {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({
    args: [...args],
    options: { only: text, quick: flag, rounds: text, markdown: text, json: text, svg: text, help: flag },
  });
  const { only = "", quick, rounds = quick ? "2" : "5", markdown, json, svg, help } = values;
  const names = only.split(",").filter((name) => name !== "");
  const unknown = names.filter((name) => !scenarios.includes(name));
  if (unknown.length > 0) throw new Error(`--only ${unknown.join()}: the scenarios are ${scenarios.join(", ")}`);
  const count = Number(rounds);
  if (!Number.isInteger(count) || count < 1 || count > MOST_ROUNDS) throw new Error(`--rounds ${rounds}: give a whole number from 1 to ${MOST_ROUNDS}`);
  return { only: names, sizes: { rounds: count, roundMs: quick ? 1_000 : 4_000, quick }, markdown, json, svg, help };
}
