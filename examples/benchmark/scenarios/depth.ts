import { setTimeout as sleep } from "node:timers/promises";
import { resultsOf, type Bench, type Team } from "../bed.js";
import type { Drained } from "../inbox.js";
import type { Timed } from "../postgres.js";
import type { Result, Row, Scenario } from "../scenario.js";
import { mesh } from "../systems.js";
import { waitingJobs } from "./queues.js";

const TAKE_LIMIT_MS = 240_000;

export const depth: Scenario = {
  name: "depth",
  about: "claims from 1,000,000 waiting jobs against 10,000, and beside a transaction that somebody leaves open for two minutes",
  async run(bench) {
    return [await claimsByDepth(bench), ...(await besideOpenTransaction(bench))];
  },
};

/** `taken` are all of the few, `times` over: as few take too short a time to be measured once. */
const DEPTHS = { quick: { taken: 5_000, times: 1, many: 50_000 }, full: { taken: 10_000, times: 5, many: 1_000_000 } };

async function claimsByDepth(bench: Bench): Promise<Row> {
  const { taken, times, many } = DEPTHS[bench.sizes.quick ? "quick" : "full"];
  const named = (count: number): string => `mesh, ${count.toLocaleString("en")} waiting`;
  const teams = await bench.teams([{ ...mesh, name: named(many) }, { ...mesh, name: named(taken), part: "peer" }], ["queue"]);
  const loaded = new Map<Team, number>();
  /** As many as are to wait, and all of them where vacuum has been. */
  const fill = async (team: Team): Promise<void> => {
    const wanted = team.system.part === "ours" ? many : taken;
    const before = loaded.get(team) ?? 0;
    const to = before + wanted - (before === 0 ? 0 : await waitingJobs(bench, team));
    await team.programs[0]!.run("load", { from: before + 1, to });
    loaded.set(team, to);
    await bench.postgres.query(team.databaseUrl, "VACUUM ANALYZE");
  };
  /** Jobs a second from the beginning of the first claim, which is the one that would have far to go. */
  const rate = async (team: Team): Promise<number> => {
    let ms = 0;
    for (let time = 0; time < times; time++) {
      await fill(team);
      ms += await take(team, taken);
    }
    return ((taken * times) / ms) * 1_000;
  };
  const figures = await bench.interleave(teams, async (team, round) => {
    if (round === 0) {
      await fill(team);
      await take(team, taken);
    }
    return rate(team);
  });
  const measure = `the first ${taken.toLocaleString("en")} of ${many.toLocaleString("en")} waiting jobs`;
  return { scenario: "depth", measure, unit: "jobs/s", better: "more", goal: { ratio: 0.8 }, results: resultsOf(figures, (rate) => rate) };
}

/** For how long it handled them. */
async function take({ programs: [program] }: Team, count: number): Promise<number> {
  const { at } = await program!.run<Drained>("take", { count, ms: TAKE_LIMIT_MS });
  return at - (await program!.run<number>("consumingSince"));
}

const RATE = 1_000;
/** Its quoted name, as statements call it. */
const CLAIM = '_chimpbase_mesh_claim"(';
/** Of the time that the transaction is open, the end of which is what counts. */
const MEASURED = 0.25;

interface Stretch {
  readonly p99: number;
  /** Null where Postgres does not count. */
  readonly claims: Timed | null;
}

/** Once, whatever the rounds: the longer the transaction is open, the worse it is, and two minutes are what the goal is about. */
async function besideOpenTransaction(bench: Bench): Promise<Row[]> {
  const ms = bench.sizes.quick ? 10_000 : 120_000;
  const teams = await bench.teams([{ ...mesh, name: "mesh, foreign transaction open" }, { ...mesh, name: "mesh, none open", part: "peer" }], ["queue", "queue"]);
  const results: { readonly team: Team; readonly stretch: Stretch }[] = [];
  for (const team of teams) {
    const close = team.system.part === "ours" ? await bench.postgres.openTransaction(team.databaseUrl) : () => Promise.resolve();
    try {
      results.push({ team, stretch: await stretch(bench, team, ms) });
    } finally {
      await close();
    }
  }
  const of = (value: (figures: Stretch) => number): Result[] =>
    results.map(({ team: { system }, stretch }) => ({ system: system.name, part: system.part, values: [value(stretch)] }));
  const base = { scenario: "depth", unit: "ms", better: "less" } as const;
  const when = `1,000/s, the last ${(ms * MEASURED) / 1_000} of ${ms / 1_000} s beside an open transaction`;
  const latency: Row = { ...base, measure: `emit to handler at ${when}: p99`, goal: { ours: 20 }, results: of(({ p99 }) => p99) };
  if (results.some(({ stretch: { claims } }) => claims === null)) return [latency];
  return [
    latency,
    { ...base, measure: `a claim in Postgres at ${when}: mean`, results: of(({ claims }) => claims!.meanMs) },
    { ...base, measure: `a claim in Postgres at ${when}: the longest`, results: of(({ claims }) => claims!.longestMs) },
  ];
}

async function stretch(bench: Bench, { databaseUrl, programs: [consumer, emitter] }: Team, ms: number): Promise<Stretch> {
  const total = (RATE * ms) / 1_000;
  await consumer!.run("arm", { from: 0, to: total - 1, ms: ms + TAKE_LIMIT_MS, measuredFrom: total * (1 - MEASURED) });
  await consumer!.run("open");
  const counted = sleep(ms * (1 - MEASURED)).then(() => bench.postgres.countAnew(databaseUrl));
  await emitter!.run("emit", { from: 0, rate: RATE, ms });
  const { latencies } = await consumer!.run<Drained>("arrived");
  await consumer!.run("close");
  const claims = (await counted) ? await bench.postgres.timed(databaseUrl, CLAIM) : null;
  return { p99: latencies.p99, claims };
}
