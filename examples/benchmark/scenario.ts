import { median } from "./measure.js";
import type { Bench } from "./bed.js";

/**
 * `ours` against the best `peer` is the ratio of a row; `shown` stands beside them: floors, and systems that promise something else.
 */
export type Part = "ours" | "peer" | "shown";

export interface Result {
  readonly system: string;
  readonly part: Part;
  /** One value a round. */
  readonly values: readonly number[];
}

/** At least, or at most, where less is better: of the ratio to the best peer, or of our own figure. */
export type Goal = { readonly ratio: number } | { readonly ours: number };

export interface Row {
  readonly scenario: string;
  readonly measure: string;
  readonly unit: string;
  readonly better: "more" | "less";
  readonly goal?: Goal;
  readonly results: readonly Result[];
  /** What else must be known to read the row. */
  readonly note?: string;
}

export interface Scenario {
  readonly name: string;
  readonly about: string;
  /** That Postgres must allow at the same time; 100 unless said. */
  readonly connections?: number;
  run(bench: Bench): Promise<Row[]>;
}

/** Ours by the best peer's, of the medians; null where no peer ran. */
export function ratioOf({ results, better }: Row): number | null {
  const ours = results.find(({ part }) => part === "ours");
  const peers = results.filter(({ part, values }) => part === "peer" && values.length > 0).map(({ values }) => median(values));
  if (ours === undefined || ours.values.length === 0 || peers.length === 0) return null;
  return median(ours.values) / (better === "more" ? Math.max(...peers) : Math.min(...peers));
}

/** Whether the goal is reached; null where there is none, or nothing to hold it against. */
export function reached(row: Row): boolean | null {
  if (row.goal === undefined) return null;
  const ours = row.results.find(({ part }) => part === "ours")?.values ?? [];
  const figure = "ratio" in row.goal ? ratioOf(row) : ours.length === 0 ? null : median(ours);
  const limit = "ratio" in row.goal ? row.goal.ratio : row.goal.ours;
  if (figure === null) return null;
  return row.better === "more" ? figure >= limit : figure <= limit;
}
