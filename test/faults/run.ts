/**
 * `npm run test:faults`: drives a cluster of real processes through seeded faults under load, and checks what the
 * histories say. `-- --quick`, `--seed N`, `--only name`, `--runs N`.
 */
import { within } from "#mesh/pipeline/time-limit.js";
import { readArguments, type FaultOptions } from "./arguments.js";
import { FaultyPostgres } from "./postgres.js";
import { Random } from "./random.js";
import { Trial, type Scenario } from "./trial.js";
import { broadcasts } from "./scenarios/broadcasts.js";
import { exactlyOnce } from "./scenarios/exactly-once.js";
import { frozen } from "./scenarios/frozen.js";
import { killed } from "./scenarios/killed.js";
import { leftovers } from "./scenarios/leftovers.js";
import { links } from "./scenarios/links.js";
import { overload } from "./scenarios/overload.js";
import { postgresDown } from "./scenarios/postgres-down.js";
import { retention } from "./scenarios/retention.js";
import { registry } from "./scenarios/registry.js";
import { rollingRestart } from "./scenarios/rolling-restart.js";
import { starved } from "./scenarios/starved.js";
import { transactions } from "./scenarios/transactions.js";

const SCENARIOS = [
  killed, exactlyOnce, rollingRestart, broadcasts, retention, frozen, postgresDown, starved, overload, links, transactions, registry, leftovers,
];
const HISTORIES = ".data/faults";
const SCENARIO_LIMIT_MS = 600_000;
/** Of a quick run over all scenarios, without what the machine let it wait. */
const QUICK_LIMIT_MS = 90_000;

interface Outcome {
  readonly scenario: string;
  readonly runs: number;
  readonly faults: number;
  readonly operations: number;
  readonly violations: number;
  readonly stalledMs: number;
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

async function runOnce(scenario: Scenario, postgres: FaultyPostgres, seed: number, quick: boolean): Promise<Outcome> {
  const startedAt = performance.now();
  process.stdout.write(`${scenario.name} (seed ${seed}) … `);
  const database = `${scenario.name.replaceAll("-", "_")}_${seed}`;
  const trial = await Trial.open(postgres, new Random(seed), quick, database);
  const { rpcAuth } = trial;
  try {
    if ((await within(scenario.run(trial), SCENARIO_LIMIT_MS)) === null) trial.violations.push(`the scenario has not ended within ${SCENARIO_LIMIT_MS} ms`);
  } catch (error) {
    trial.violations.push(`the scenario broke off: ${(error as Error).stack}`);
  }
  const { history, violations, unjudged } = trial;
  const faults = history.all("fault").length;
  const stalledMs = history.stalledMs(0, Infinity, trial.frozen);
  console.log(`${rpcAuth}, ${faults} faults, ${history.operations} operations, ${seconds(performance.now() - startedAt)}, ${seconds(stalledMs)} stalled`);
  if (unjudged.length > 0) {
    console.log(`  ${unjudged.length} failed calls not judged: the machine let processes wait meanwhile; as ${unjudged[0]!.error}`);
  }
  if (violations.length > 0) {
    for (const violation of violations) console.log(`  VIOLATION ${violation}`);
    console.log(`  history: ${await history.save(HISTORIES, `${scenario.name}-${seed}`, { scenario: scenario.name, seed, quick, rpcAuth, violations })}`);
  }
  await trial.close();
  return { scenario: scenario.name, runs: 1, faults, operations: history.operations, violations: violations.length, stalledMs };
}

function total(outcomes: readonly Outcome[]): Outcome[] {
  const totals = new Map<string, Outcome>();
  for (const next of outcomes) {
    const sum = totals.get(next.scenario) ?? { scenario: next.scenario, runs: 0, faults: 0, operations: 0, violations: 0, stalledMs: 0 };
    totals.set(next.scenario, {
      scenario: next.scenario,
      runs: sum.runs + next.runs,
      faults: sum.faults + next.faults,
      operations: sum.operations + next.operations,
      violations: sum.violations + next.violations,
      stalledMs: sum.stalledMs + next.stalledMs,
    });
  }
  return [...totals.values()];
}

function printTable(outcomes: readonly Outcome[]): void {
  const line = (scenario: string, ...figures: readonly (string | number)[]): void =>
    console.log(scenario.padEnd(18) + figures.map((figure) => String(figure).padStart(12)).join(""));
  console.log();
  line("scenario", "runs", "faults", "operations", "violations");
  for (const { scenario, runs, faults, operations, violations } of outcomes) line(scenario, runs, faults, operations, violations);
}

/** True where a quick run has kept its time. */
function judgeTime(outcomes: readonly Outcome[], tookMs: number, { quick, runs }: FaultOptions): boolean {
  const stalledMs = outcomes.reduce((sum, outcome) => sum + outcome.stalledMs, 0);
  const inTime = !quick || tookMs - stalledMs <= runs * QUICK_LIMIT_MS;
  console.log(`\nall in ${seconds(tookMs)}, ${seconds(stalledMs)} of them stalled${inTime ? "" : `: TOO LONG, a quick run may take ${seconds(QUICK_LIMIT_MS)}`}`);
  return inTime;
}

async function main(): Promise<number> {
  const startedAt = performance.now();
  const options = readArguments(process.argv.slice(2));
  const { seed, runs, only, quick } = options;
  const chosen = SCENARIOS.filter(({ name }) => only.length === 0 || only.includes(name));
  if (only.some((name) => SCENARIOS.every((scenario) => scenario.name !== name))) throw new Error(`no such scenario; there are: ${SCENARIOS.map(({ name }) => name).join(", ")}`);
  console.log(`seed ${seed}${quick ? ", quick" : ""}, Node ${process.version}`);
  const outcomes: Outcome[] = [];
  const postgres = await FaultyPostgres.open();
  try {
    for (let run = 0; run < runs; run++) {
      for (const scenario of chosen) outcomes.push(await runOnce(scenario, postgres, seed + run, quick));
    }
  } finally {
    await postgres.close();
  }
  printTable(total(outcomes));
  const inTime = judgeTime(outcomes, performance.now() - startedAt, options);
  return inTime && outcomes.every(({ violations }) => violations === 0) ? 0 : 1;
}

// Takes the exit handlers along: nodes and Postgres may stand still.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
process.exitCode = await main();
