/** `npm run bench`: the mesh beside its peers, in turn, on one machine. docs/performance.md tells what is measured and how to read it. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Bench } from "./bed.js";
import { barChart } from "./chart.js";
import { installPeers } from "./install.js";
import { readOptions, USAGE, type Options } from "./options.js";
import { Postgres } from "./postgres.js";
import { describeMachine, json, machineLine, markdown, TABLE_HEAD, tableLine, type Machine } from "./report.js";
import { reached, type Row, type Scenario } from "./scenario.js";
import { SCENARIOS } from "./scenarios/index.js";

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function measure(options: Options): Promise<Row[]> {
  const { only, sizes } = options;
  const postgres = await Postgres.start();
  const bench = new Bench(sizes, postgres, say);
  // A server of the user's own must not keep the databases of a run that was broken off.
  process.once("SIGINT", () => void bench.clear().finally(() => postgres.stop()).finally(() => process.exit(130)));
  try {
    const machine = describeMachine(await postgres.version(), sizes.quick ? "quick" : "full length", sizes.rounds);
    process.stdout.write(`${machineLine(machine)}\n\n${TABLE_HEAD}`);
    const rows: Row[] = [];
    for (const scenario of SCENARIOS) {
      if (only.length > 0 && !only.includes(scenario.name)) continue;
      rows.push(...(await runScenario(scenario, bench)));
      // After each, so that a run that is broken off leaves what it has measured.
      await write(options, machine, rows);
    }
    return rows;
  } finally {
    await postgres.stop();
  }
}

async function runScenario(scenario: Scenario, bench: Bench): Promise<Row[]> {
  try {
    const rows = await scenario.run(bench);
    process.stdout.write(rows.map(tableLine).join(""));
    return rows;
  } catch (error) {
    process.exitCode = 1;
    say(`${scenario.name}: broken off: ${(error as Error).stack}`);
    return [];
  } finally {
    await bench.clear();
  }
}

async function write(options: Options, machine: Machine, rows: readonly Row[]): Promise<void> {
  if (options.markdown !== undefined) await writeFile(options.markdown, markdown(machine, rows));
  if (options.json !== undefined) await writeFile(options.json, json(machine, rows));
  if (options.svg === undefined) return;
  await mkdir(options.svg, { recursive: true });
  for (const scenario of new Set(rows.map((row) => row.scenario))) {
    const chart = barChart(machine, scenario, rows.filter((row) => row.scenario === scenario));
    await writeFile(join(options.svg, `${scenario}.svg`), chart);
  }
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2), SCENARIOS.map(({ name }) => name));
  if (options.help) {
    const width = Math.max(...SCENARIOS.map(({ name }) => name.length));
    process.stdout.write(`${USAGE}\n${SCENARIOS.map(({ name, about }) => `${name.padEnd(width)}  ${about}`).join("\n")}\n`);
    return;
  }
  await installPeers();
  const rows = await measure(options);
  const judged = rows.map(reached).filter((is) => is !== null);
  process.stdout.write(`\n${judged.filter((is) => is).length} of ${judged.length} goals reached\n`);
}

await main();
