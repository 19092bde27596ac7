import { resultsOf, type Bench, type Team } from "../bed.js";
import type { Drained } from "../inbox.js";
import { median } from "../measure.js";
import { figure } from "../report.js";
import type { Row, Scenario } from "../scenario.js";
import { checkEffects, waitingJobs } from "./queues.js";
import { mesh, meshPlainEmit, moleculerOverBrokers, moleculerTcp, notifyFloor } from "../systems.js";

const ARRIVAL_LIMIT_MS = 60_000;
const PUBLISHES_UNDER_WAY = 500;
/** A second, for the latency. */
const RATE = 100;

export const broadcast: Scenario = {
  name: "broadcast",
  about: "events to 1 and to 5 receiving processes, ours durable and theirs not, and their latency at 100 a second",
  async run(bench) {
    const systems = [mesh, moleculerTcp, ...(await moleculerOverBrokers("peer")), meshPlainEmit, notifyFloor];
    const rows: Row[] = [];
    for (const receivers of [1, 5]) {
      const teams = await bench.teams(systems, Array.from({ length: receivers + 1 }, () => "bus"));
      const opened = new Set<Team>();
      const open = async (team: Team): Promise<void> => {
        if (opened.has(team)) return;
        opened.add(team);
        await Promise.all(team.programs.slice(1).map((program) => program.run("open")));
        await team.programs[0]!.run("ready", { receivers });
      };
      const count = bench.sizes.quick ? 5_000 : receivers === 1 ? 200_000 : 100_000;
      const figures = await bench.interleave(teams, async (team, round) => {
        await open(team);
        if (round === 0) await throughput(team, 1, count / 5);
        const from = (round + 1) * count;
        return throughput(team, from, from + count - 1);
      });
      const measure = `events to ${receivers} receiving ${receivers === 1 ? "process" : "processes"}`;
      rows.push({ scenario: "broadcast", measure, unit: "events/s", better: "more", goal: { ratio: 2.5 }, results: resultsOf(figures, (rate) => rate) });
      if (receivers === 1) rows.push(...(await latency(bench, teams)));
      await bench.clear();
    }
    return rows;
  },
};

/** Events a second, from the first publish to the last arrival at the last receiver. */
async function throughput({ programs: [publisher, ...receivers] }: Team, from: number, to: number): Promise<number> {
  await Promise.all(receivers.map((receiver) => receiver.run("arm", { from, to, ms: ARRIVAL_LIMIT_MS })));
  const started = await publisher!.run<number>("publish", { from, to, concurrency: PUBLISHES_UNDER_WAY });
  const ends = await Promise.all(receivers.map((receiver) => receiver.run<Drained>("arrived")));
  await Promise.all(receivers.map((receiver) => receiver.run("disarm")));
  return ((to - from + 1) / (Math.max(...ends.map(({ at }) => at)) - started)) * 1_000;
}

async function latency(bench: Bench, teams: readonly Team[]): Promise<Row[]> {
  const ms = bench.sizes.roundMs * 2;
  const count = (RATE * ms) / 1_000;
  const figures = await bench.interleave(teams, async ({ programs: [publisher, receiver] }, round) => {
    const from = round * count;
    await receiver!.run("arm", { from, to: from + count - 1, ms: ms + ARRIVAL_LIMIT_MS });
    await publisher!.run("emit", { from, rate: RATE, ms });
    const { latencies } = await receiver!.run<Drained>("arrived");
    await receiver!.run("disarm");
    return latencies;
  });
  const base = { scenario: "broadcast", unit: "ms", better: "less" } as const;
  return [
    { ...base, measure: "emit to handler at 100/s: p50", goal: { ours: 3 }, results: resultsOf(figures, ({ p50 }) => p50) },
    { ...base, measure: "emit to handler at 100/s: p99", results: resultsOf(figures, ({ p99 }) => p99) },
  ];
}

/** Before the first round, as a share of a round. */
const WARM_UP = 0.2;
const OUTBOX = [
  { system: mesh, emit: 1, notify: 0 },
  { system: { ...mesh, name: "mesh, NOTIFY inside", part: "peer" }, emit: 1, notify: 1 },
  { system: { ...mesh, name: "the row alone", part: "shown" }, emit: 0, notify: 0 },
] as const;

export const outbox: Scenario = {
  name: "outbox",
  about: "transactions on 8 connections that write a row and emit, against the same with NOTIFY inside each transaction",
  async run(bench) {
    const count = bench.sizes.quick ? 1_000 : 10_000;
    const teams = await bench.teams(OUTBOX.map(({ system }) => system), ["outbox"], { effects: true });
    const transactions = async (team: Team, from: number, to: number): Promise<number> => {
      const { emit, notify } = OUTBOX.find(({ system }) => system === team.system)!;
      const { ms } = await team.programs[0]!.run<{ ms: number }>("transactions", { from, to, concurrency: 8, emit, notify });
      await checkEffects(bench, team, to);
      const waiting = await waitingJobs(bench, team);
      if (waiting !== emit * to) throw new Error(`${to} transactions left ${waiting} jobs`);
      return ((to - from + 1) / ms) * 1_000;
    };
    const warmUp = count * WARM_UP;
    const flushMs: number[] = [];
    const figures = await bench.interleave(teams, async (team, round) => {
      if (round === 0) await transactions(team, 1, warmUp);
      if (team.system.part === "ours") flushMs.push(await bench.postgres.flushMs(team.databaseUrl));
      return transactions(team, warmUp + round * count + 1, warmUp + (round + 1) * count);
    });
    return [
      {
        scenario: "outbox",
        measure: "transactions that emit, 8 connections",
        unit: "transactions/s",
        better: "more",
        goal: { ratio: 3 },
        results: resultsOf(figures, (rate) => rate),
        note: `one flush of the write-ahead log takes ${figure(median(flushMs))} ms here, for which a NOTIFY inside makes others wait`,
      },
    ];
  },
};
