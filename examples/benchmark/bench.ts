/** `npm run bench`: the mesh beside its peers, in turn, on one machine. docs/performance.md tells what is measured and how to read it. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Bench } from "./bed.js";
import { barChart } from "./chart.js";
import { installPeers } from "./install.js";
import { readOptions, USAGE, type Options } from "./options.js";
import { Postgres } from "./postgres.js";
import { describeMachine, json, machineLine, markdown, TABLE_HEAD, tableLine, type Machine } from "./report.js";
import { reached, type Row, type Scenario } from "./scenario.js";
import { SCENARIOS } from "./scenarios/index.js";

/** With the codes that shells give to a process which one of them ended. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };
/** Of every Postgres; what a scenario needs beyond that it says. */
const CONNECTIONS = 100;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function measure(options: Options): Promise<Row[]> {
  const { only, sizes } = options;
  const postgres = await Postgres.start();
  const bench = new Bench(sizes, postgres, say);
  // A server of the user's own must not keep the databases of a run that was broken off.
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => void bench.end().finally(() => postgres.stop()).finally(() => process.exit(code)));
  }
  try {
    const machine = describeMachine(await postgres.version(), sizes.quick ? "quick" : "full length", sizes.rounds);
    process.stdout.write(`${machineLine(machine)}\n\n${TABLE_HEAD}`);
    const rows: Row[] = [];
    const connections = await postgres.maxConnections();
    for (const scenario of SCENARIOS) {
      if (only.length > 0 && !only.includes(scenario.name)) continue;
      const { name, connections: needed = CONNECTIONS } = scenario;
      if (connections < needed) {
        say(`skipped: ${name} needs max_connections of ${needed}, this Postgres has ${connections}`);
        continue;
      }
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
  if (options.markdown !== undefined) await writeWhole(options.markdown, markdown(machine, rows));
  if (options.json !== undefined) await writeWhole(options.json, json(machine, rows));
  if (options.svg === undefined) return;
  for (const scenario of new Set(rows.map((row) => row.scenario))) {
    const chart = barChart(machine, scenario, rows.filter((row) => row.scenario === scenario));
    await writeWhole(join(options.svg, `${scenario}.svg`), chart);
  }
}

async function writeWhole(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2), SCENARIOS.map(({ name }) => name));
  if (options.help) {
    const width = Math.max(...SCENARIOS.map(({ name }) => name.length));
    process.stdout.write(`${USAGE}\n${SCENARIOS.map(({ name, about }) => `${name.padEnd(width)}  ${about}`).join("\n")}\n`);
    return;
  }
  await installPeers().catch((error: Error) => say(error.message));
  const rows = await measure(options);
  const judged = rows.map(reached).filter((is) => is !== null);
  process.stdout.write(`\n${judged.filter((is) => is).length} of ${judged.length} goals reached\n`);
}

try {
  await main();
} catch (error) {
  say((error as Error).message);
  process.exitCode = 1;
}
