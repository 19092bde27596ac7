import { median } from "./measure.js";
import { figure, machineLine, type Machine } from "./report.js";
import type { Result, Row } from "./scenario.js";

const WIDTH = 760;
const LABELS = 260;
const FIGURES = 130;
const BAR = 20;
const GAP = 6;
const HEADING = 34;
const COLOURS = { ours: "#2f6f4f", peer: "#7a8794", shown: "#c3cad1" } as const;

/** Bars of the medians, one block for each row, each on a scale of its own from zero. */
export function barChart(machine: Machine, scenario: string, rows: readonly Row[]): string {
  const parts: string[] = [];
  let y = 10;
  for (const row of rows) {
    parts.push(text(10, y + 18, `${row.measure}, ${row.unit} (${row.better} is better)`, "bold"));
    y += HEADING;
    const bars = row.results.filter(({ values }) => values.length > 0);
    const most = Math.max(...bars.map(({ values }) => median(values)));
    for (const result of bars) {
      parts.push(bar(result, most, y));
      y += BAR + GAP;
    }
    y += 12;
  }
  parts.push(text(10, y + 10, machineLine(machine)));
  const height = y + 24;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13" role="img" aria-label="${escape(`Benchmark ${scenario}`)}">
<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>
${parts.join("\n")}
</svg>
`;
}

function bar({ system, part, values }: Result, most: number, y: number): string {
  const value = median(values);
  const length = most > 0 ? Math.max(1, (value / most) * (WIDTH - LABELS - FIGURES)) : 1;
  const rect = `<rect x="${LABELS}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" fill="${COLOURS[part]}"/>`;
  return `${text(10, y + 15, system)}\n${rect}\n${text(LABELS + length + 8, y + 15, figure(value))}`;
}

function text(x: number, y: number, content: string, weight = "normal"): string {
  return `<text x="${x.toFixed(1)}" y="${y}" fill="#1c2126" font-weight="${weight}">${escape(content)}</text>`;
}

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escape = (content: string): string => content.replaceAll(/[&<>"]/g, (character) => ENTITIES[character]!);
