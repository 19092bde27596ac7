import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, Team } from "../bed.js";
import type { Taken } from "../inbox.js";
import { median, summary, type Latencies } from "../measure.js";
import type { Row, Scenario } from "../scenario.js";
import { graphileWorker, mesh } from "../systems.js";
import { resultsOf } from "./calls.js";

/** The higher one is the goal's; at the lower one the peers keep up on small machines too. */
const RATES = [500, 2_000];
const NODES = 3;
/** A latency beyond this is that of a growing queue. */
const KEEPS_UP_MS = 250;
const ARRIVAL_LIMIT_MS = 30_000;

export const steady: Scenario = {
  name: "steady",
  about: "500 and 2,000 jobs a second, added one by one and worked off by 3 nodes: from the add to the start of the handler",
  async run(bench) {
    const rows: Row[] = [];
    for (const rate of RATES) {
      rows.push(...(await atRate(bench, rate)));
      await bench.clear();
    }
    return rows;
  },
};

async function atRate(bench: Bench, rate: number): Promise<Row[]> {
  const systems = [mesh, graphileWorker, { ...graphileWorker, name: "graphile-worker, no local queue", variant: "direct" }];
  const teams = await bench.teams(systems, [...Array.from({ length: NODES }, () => "queue"), "queue"]);
  const ms = bench.sizes.roundMs * 2;
  const next = new Map<Team, number>();
  const measure = async (team: Team, duration: number): Promise<Latencies> => {
    const from = next.get(team) ?? 0;
    const total = await team.programs[NODES]!.run<number>("emit", { from, rate, ms: duration });
    next.set(team, from + total);
    return arrivals(team, from, total);
  };
  const figures = await bench.interleave(teams, async (team, round) => {
    if (round === 0) {
      await Promise.all(team.programs.slice(0, NODES).map((program) => program.run("open")));
      await measure(team, ms / 2);
    }
    return measure(team, ms);
  });
  const late = [...figures].filter(([, all]) => all.length > 0 && median(all.map(({ p50 }) => p50)) > KEEPS_UP_MS).map(([{ system }]) => system.name);
  const note = late.length === 0 ? {} : { note: `does not keep up: ${late.join(", ")}` };
  const base = { scenario: "steady", unit: "ms", better: "less", ...note } as const;
  const measured = `add to start at ${rate.toLocaleString("en")}/s`;
  return [
    { ...base, measure: `${measured}: p50`, goal: { ratio: 0.75 }, results: resultsOf(figures, ({ p50 }) => p50) },
    { ...base, measure: `${measured}: p99`, goal: { ratio: 1 }, results: resultsOf(figures, ({ p99 }) => p99) },
  ];
}

async function arrivals({ programs }: Team, from: number, total: number): Promise<Latencies> {
  const seen = new Set<number>();
  const latencies: number[] = [];
  for (const end = performance.now() + ARRIVAL_LIMIT_MS; seen.size < total; await sleep(50)) {
    if (performance.now() > end) throw new Error(`${seen.size} of ${total} jobs came`);
    for (const { i, ms } of (await Promise.all(programs.slice(0, NODES).map((program) => program.run<Taken[]>("collect")))).flat()) {
      if (i < from || seen.has(i)) throw new Error(`job ${i} ran twice`);
      seen.add(i);
      latencies.push(ms);
    }
  }
  return summary(latencies);
}
