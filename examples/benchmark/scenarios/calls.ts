import { resultsOf, type Bench, type Team } from "../bed.js";
import { kindNumber } from "../commands.js";
import type { Latencies, Rate } from "../measure.js";
import type { CallKind } from "../roles.js";
import type { Goal, Result, Row, Scenario } from "../scenario.js";
import {
  functionFloor, httpFloor, lineFloor, mesh, moleculer, moleculerOverBrokers, moleculerTcp, moleculerTcpWithLimit, moleculerWithLimit, nestTcp,
} from "../systems.js";

interface Load {
  readonly kind: CallKind;
  readonly concurrency: number;
  readonly bytes?: number;
}

const callerOf = ({ programs }: Team) => programs.at(-1)!;

function measureCalls(bench: Bench, teams: readonly Team[], load: (team: Team) => Load): Promise<Map<Team, Rate[]>> {
  const ms = bench.sizes.roundMs;
  return bench.interleave(teams, async (team, round) => {
    const { kind, ...numbers } = load(team);
    const args = { ...numbers, kind: kindNumber(kind) };
    await callerOf(team).run("calls", { ...args, ms: round === 0 ? ms / 2 : ms / 5 });
    return callerOf(team).run<Rate>("calls", { ...args, ms });
  });
}

async function remoteTeams(bench: Bench): Promise<Team[]> {
  const systems = [mesh, moleculerTcp, nestTcp, moleculerTcpWithLimit, ...(await moleculerOverBrokers("shown")), httpFloor, lineFloor];
  return bench.teams(systems, ["callee", "caller"]);
}

async function loads(bench: Bench, scenario: string, wanted: readonly { measure: string; load: Load; goal: Goal }[]): Promise<Row[]> {
  const teams = await remoteTeams(bench);
  const rows: Row[] = [];
  for (const { measure, load, goal } of wanted) {
    const figures = await measureCalls(bench, teams, () => load);
    rows.push({ scenario, measure, unit: "calls/s", better: "more", goal, results: resultsOf(figures, ({ rate }) => rate) });
    rows.push({ scenario, measure: `${measure}: p99`, unit: "ms", better: "less", results: resultsOf(figures, ({ p99 }) => p99) });
  }
  return rows;
}

export const remote: Scenario = {
  name: "remote",
  about: "a remote call with a small JSON body, 1, 64 and 256 at a time",
  run: (bench) =>
    loads(bench, "remote", [
      { measure: "remote call, 1 at a time", load: { kind: "add", concurrency: 1 }, goal: { ratio: 1.2 } },
      { measure: "remote call, 64 at a time", load: { kind: "add", concurrency: 64 }, goal: { ratio: 2 } },
      { measure: "remote call, 256 at a time", load: { kind: "add", concurrency: 256 }, goal: { ratio: 2 } },
    ]),
};

export const bodies: Scenario = {
  name: "bodies",
  about: "a remote call with 10 KB and 100 KB there and back, 64 at a time",
  run: (bench) =>
    loads(bench, "bodies", [
      { measure: "10 KB there and back, 64 at a time", load: { kind: "echo", concurrency: 64, bytes: 10_000 }, goal: { ratio: 1.5 } },
      { measure: "100 KB there and back, 64 at a time", load: { kind: "echo", concurrency: 64, bytes: 100_000 }, goal: { ratio: 1.5 } },
    ]),
};

const PACED_RATE = 2_000;
const SLOW_EVERY = 20;

export const mixed: Scenario = {
  name: "mixed",
  about: "fast calls while 5 % of all calls take 200 ms, 2,000 a second",
  async run(bench) {
    const teams = await remoteTeams(bench);
    const paced = (team: Team, slowEvery: number, ms: number): Promise<Latencies> => callerOf(team).run<Latencies>("paced", { rate: PACED_RATE, ms, slowEvery });
    const ms = bench.sizes.roundMs * 2;
    const figures = await bench.interleave(teams, async (team, round) => {
      if (round === 0) await paced(team, SLOW_EVERY, ms / 2);
      const without = (): Promise<Latencies> => paced(team, 0, ms);
      const first = round % 2 === 0 ? await without() : null;
      const withSlow = await paced(team, SLOW_EVERY, ms);
      return { without: first ?? (await without()), with: withSlow };
    });
    const beside = resultsOf(figures, (figure) => figure.with.p99).map((result) => (result.part === "ours" ? result : { ...result, part: "shown" as const }));
    const ours = figures.get(teams[0]!)!;
    const without: Result = { system: "mesh, no slow calls", part: "peer", values: ours.map((figure) => figure.without.p99) };
    const measure = "fast calls beside 5 % slow ones: p99";
    return [{ scenario: "mixed", measure, unit: "ms", better: "less", goal: { ratio: 3 }, results: [beside[0]!, without, ...beside.slice(1)] }];
  },
};

export const local: Scenario = {
  name: "local",
  about: "a call within the process, with deadline, context and validation hooks",
  async run(bench) {
    const teams = await bench.teams([mesh, moleculer, moleculerWithLimit, functionFloor], ["local"]);
    const row = async (measure: string, kind: CallKind): Promise<Row> => {
      const figures = await measureCalls(bench, teams, () => ({ kind, concurrency: 64 }));
      return { scenario: "local", measure, unit: "calls/s", better: "more", goal: { ratio: 1.5 }, results: resultsOf(figures, ({ rate }) => rate) };
    };
    return [await row("local call, 64 at a time", "add"), await row("the same, of an asynchronous handler", "addLater")];
  },
};

export const validated: Scenario = {
  name: "validated",
  about: "a remote call whose arguments are checked by a class-validator class of 5 fields, against one that is not",
  async run(bench) {
    const teams = await bench.teams([mesh, { ...mesh, name: "mesh, unvalidated", part: "peer" }], ["callee", "caller"]);
    const kind = ({ system }: Team): CallKind => (system.part === "ours" ? "addChecked" : "addUnchecked");
    const figures = await measureCalls(bench, teams, (team) => ({ kind: kind(team), concurrency: 64 }));
    return [{ scenario: "validated", measure: "validated call, 64 at a time", unit: "calls/s", better: "more", goal: { ratio: 0.5 }, results: resultsOf(figures, ({ rate }) => rate) }];
  },
};
