import { setTimeout as sleep } from "node:timers/promises";
import { resultsOf, type Bench, type Team } from "../bed.js";
import type { Taken } from "../inbox.js";
import { summary, type Latencies } from "../measure.js";
import type { Row, Scenario } from "../scenario.js";
import { graphileWorker, mesh } from "../systems.js";
import { figure } from "../report.js";

/** The higher one is the goal's; at the lower one the peers keep up on small machines too. */
const RATES = [500, 2_000];
const NODES = 3;
/** The goal's rate runs so long at full length. */
const LONG_MS = 30_000;
/** Of a round's jobs: who leaves more of them waiting at its end has a queue that grows. */
const LEFT_BEHIND = 0.25;
/** Each system has a process that adds and the nodes, whose pools may all be full. */
const CONNECTIONS = 700;
/** For what has piled up with a system that does not keep up. */
const ARRIVAL_LIMIT_MS = 180_000;

export const steady: Scenario = {
  name: "steady",
  about: "500 and 2,000 jobs a second, added one by one and worked off by 3 nodes: from when an add is due to the start of the handler",
  connections: CONNECTIONS,
  async run(bench) {
    const rows: Row[] = [];
    for (const rate of RATES) {
      rows.push(...(await atRate(bench, rate)));
      await bench.clear();
    }
    return rows;
  },
};

interface Steady extends Latencies {
  /** Jobs that were due, but not begun, when the last one was due. */
  readonly waiting: number;
}

async function atRate(bench: Bench, rate: number): Promise<Row[]> {
  const systems = [
    mesh,
    graphileWorker,
    { ...graphileWorker, name: "graphile-worker, no local queue", variant: "direct" },
    { ...graphileWorker, name: "graphile-worker, local queue of 25", variant: "small" },
    { ...graphileWorker, name: "graphile-worker, 10 ms between fetches", variant: "gathering" },
    { ...graphileWorker, name: "graphile-worker, adds joined", variant: "joined" },
  ];
  const teams = await bench.teams(systems, [...Array.from({ length: NODES }, () => "queue"), "queue"]);
  const short = bench.sizes.roundMs * 2;
  const ms = rate === RATES.at(-1) && !bench.sizes.quick ? LONG_MS : short;
  const next = new Map<Team, number>();
  const measure = async (team: Team, duration: number): Promise<Steady> => {
    const from = next.get(team) ?? 0;
    const total = await team.programs[NODES]!.run<number>("emit", { from, rate, ms: duration });
    next.set(team, from + total);
    return arrivals(team, from, total, rate);
  };
  const behind = new Map<Team, Steady>();
  const rounds = await bench.interleave(teams, async (team, round) => {
    // A queue that grows takes minutes to work off, and is no shorter the next time.
    if (behind.has(team)) return null;
    if (round === 0) {
      await Promise.all(team.programs.slice(0, NODES).map((program) => program.run("open")));
      await measure(team, short / 2);
    }
    const measured = await measure(team, ms);
    if (measured.waiting > ((rate * ms) / 1_000) * LEFT_BEHIND) behind.set(team, measured);
    return measured;
  });
  const figures = new Map([...rounds].map(([team, all]) => [team, all.filter((measured) => measured !== null)]));
  const queues = [...behind].map(([{ system }, { waiting }]) => `${system.name}, ${figure(waiting)} jobs waiting after ${ms / 1_000} s`);
  const note = queues.length === 0 ? {} : { note: `who does not keep up is beaten: ${queues.join("; ")}` };
  const base = { scenario: "steady", unit: "ms", better: "less", ...note } as const;
  const measured = `add to start at ${rate.toLocaleString("en")}/s`;
  const goal = (ratio: number): Pick<Row, "goal"> => (rate === RATES.at(-1) ? { goal: { ratio } } : {});
  return [
    { ...base, measure: `${measured}: p50`, ...goal(0.75), results: resultsOf(figures, ({ p50 }) => p50) },
    { ...base, measure: `${measured}: p99`, ...goal(1), results: resultsOf(figures, ({ p99 }) => p99) },
  ];
}

async function arrivals({ programs }: Team, from: number, total: number, rate: number): Promise<Steady> {
  const seen = new Set<number>();
  const latencies: number[] = [];
  let waiting = 0;
  for (const end = performance.now() + ARRIVAL_LIMIT_MS; seen.size < total; await sleep(50)) {
    if (performance.now() > end) throw new Error(`${seen.size} of ${total} jobs came`);
    for (const { i, ms } of (await Promise.all(programs.slice(0, NODES).map((program) => program.run<Taken[]>("collect")))).flat()) {
      if (i < from || seen.has(i)) throw new Error(`job ${i} ran twice`);
      seen.add(i);
      latencies.push(ms);
      if (ms > ((from + total - 1 - i) / rate) * 1_000) waiting++;
    }
  }
  return { ...summary(latencies), waiting };
}
