import { availableParallelism, cpus } from "node:os";
import { median } from "./measure.js";
import { ratioOf, reached, type Result, type Row } from "./scenario.js";

export interface Machine {
  readonly node: string;
  readonly postgres: string;
  readonly cpu: string;
  readonly cores: number;
  readonly mode: string;
  readonly rounds: number;
}

export function describeMachine(postgres: string, mode: string, rounds: number): Machine {
  return { node: process.version, postgres, cpu: cpus()[0]?.model.trim() ?? "unknown", cores: availableParallelism(), mode, rounds };
}

export function machineLine({ node, postgres, cpu, cores, mode, rounds }: Machine): string {
  return `Node ${node}, Postgres ${postgres}, ${cores} cores of ${cpu}, ${mode}, ${rounds} ${rounds === 1 ? "round" : "rounds"}`;
}

/** Three significant digits, so that no figure looks more exact than it is. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (Math.abs(value) >= 100) return Number(value.toPrecision(3)).toLocaleString("en");
  return Number(value.toPrecision(3)).toString();
}

/** Median, and the lowest and highest round. */
function spread({ values }: Result): string {
  if (values.length === 0) return "failed";
  if (values.length === 1) return figure(values[0]!);
  return `${figure(median(values))} (${figure(Math.min(...values))} to ${figure(Math.max(...values))})`;
}

function goalText(row: Row): string {
  const { goal, better } = row;
  if (goal === undefined) return "";
  const sign = better === "more" ? "≥" : "≤";
  const mark = { true: " ✓", false: " ✗", null: "" }[String(reached(row)) as "true" | "false" | "null"];
  return `${sign} ${"ratio" in goal ? `${goal.ratio}×` : goal.ours}${mark}`;
}

function ratioText(row: Row): string {
  const ratio = ratioOf(row);
  return ratio === null ? "" : `${figure(ratio)}×`;
}

export const TABLE_HEAD = `| scenario | measured | unit | mesh | beside it | mesh / best peer | goal |\n|---|---|---|---|---|---|---|\n`;

export function tableLine(row: Row): string {
  const ours = row.results.find(({ part }) => part === "ours");
  const others = row.results
    .filter(({ part }) => part !== "ours")
    .map((result) => `${result.system} ${spread(result)}`)
    .join("; ");
  const measured = row.note === undefined ? row.measure : `${row.measure} (${row.note})`;
  return `| ${row.scenario} | ${measured} | ${row.unit} | ${ours === undefined ? "" : spread(ours)} | ${others} | ${ratioText(row)} | ${goalText(row)} |\n`;
}

export function markdown(machine: Machine, rows: readonly Row[]): string {
  return `${machineLine(machine)}. Medians, with the lowest and highest round in brackets.\n\n${TABLE_HEAD}${rows.map(tableLine).join("")}`;
}

export function json(machine: Machine, rows: readonly Row[]): string {
  const measured = rows.map((row) => ({ ...row, ratio: ratioOf(row), reached: reached(row) }));
  return `${JSON.stringify({ machine, rows: measured }, null, 2)}\n`;
}
