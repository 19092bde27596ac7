import { parseArgs } from "node:util";

export interface FaultOptions {
  readonly seed: number;
  /** How often all scenarios run, each time with the next seed. */
  readonly runs: number;
  /** Names of scenarios; empty: all. */
  readonly only: readonly string[];
  readonly quick: boolean;
}

/** Throws where an argument is unknown or no number. */
export function readArguments(given: readonly string[]): FaultOptions {
  const { values } = parseArgs({
    args: [...given],
    options: {
      seed: { type: "string" },
      runs: { type: "string", default: "1" },
      only: { type: "string", multiple: true, default: [] },
      quick: { type: "boolean", default: false },
    },
  });
  return {
    seed: values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber("seed", values.seed),
    runs: wholeNumber("runs", values.runs),
    only: values.only.flatMap((names) => names.split(",")),
    quick: values.quick,
  };
}

function wholeNumber(name: string, text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  throw new Error(`--${name} takes a whole number, not ${text}`);
}
