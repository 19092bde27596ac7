import type { Bench, Team } from "../bed.js";
import type { Drained } from "../inbox.js";
import type { Row, Scenario } from "../scenario.js";
import { graphileWorker, mesh, moleculerChannels, pgBoss, sqlFloor, transactionFloor } from "../systems.js";
import { resultsOf } from "./calls.js";

const DRAIN_LIMIT_MS = 240_000;

interface Drain {
  readonly loadPerSecond: number;
  readonly perSecond: number;
}

/** Loads `count` messages, lets Postgres tidy up, and consumes them. */
async function loadAndDrain(bench: Bench, { programs: [program], databaseUrl }: Team, round: number, count: number): Promise<Drain> {
  const [from, to] = [round * count + 1, (round + 1) * count];
  const started = performance.now();
  await program!.run("load", { from, to });
  const loadMs = performance.now() - started;
  await bench.postgres.query(databaseUrl, "VACUUM ANALYZE");
  const { ms } = await program!.run<Drained>("drain", { from, to, ms: DRAIN_LIMIT_MS });
  return { loadPerSecond: (count / loadMs) * 1_000, perSecond: ((count - 1) / ms) * 1_000 };
}

export const queue: Scenario = {
  name: "queue",
  about: "50,000 waiting jobs with a trivial handler, worked off by one node",
  async run(bench) {
    const count = bench.sizes.quick ? 5_000 : 50_000;
    const systems = [mesh, graphileWorker, pgBoss, ...(await moleculerChannels("shown")), sqlFloor];
    const figures = await bench.interleave(await bench.teams(systems, ["queue"]), (team, round) => loadAndDrain(bench, team, round, count));
    const measure = `${count.toLocaleString("en")} waiting jobs, one node`;
    const emitted = resultsOf(figures, ({ loadPerSecond }) => loadPerSecond).slice(0, 1);
    return [
      { scenario: "queue", measure, unit: "jobs/s", better: "more", goal: { ratio: 1.5 }, results: resultsOf(figures, ({ perSecond }) => perSecond) },
      { scenario: "queue", measure: "emitting them, 500 at a time", unit: "events/s", better: "more", results: emitted },
    ];
  },
};

export const exactlyOnce: Scenario = {
  name: "exactly-once",
  about: "waiting jobs whose handler inserts one row, in one transaction with the job's completion",
  async run(bench) {
    const count = bench.sizes.quick ? 1_000 : 10_000;
    const teams = await bench.teams([mesh, pgBoss, { ...graphileWorker, name: "graphile-worker, own transaction" }, transactionFloor], ["queue"], { effects: true });
    const figures = await bench.interleave(teams, async (team, round) => {
      const drain = await loadAndDrain(bench, team, round, count);
      await checkEffects(bench, team, (round + 1) * count);
      return drain;
    });
    return [
      {
        scenario: "exactly-once",
        measure: "jobs that insert one row",
        unit: "jobs/s",
        better: "more",
        goal: { ratio: 2 },
        results: resultsOf(figures, ({ perSecond }) => perSecond),
        note: "graphile-worker completes a job apart from the task's transaction: at least once, not exactly once",
      },
    ];
  },
};

async function checkEffects(bench: Bench, { system, databaseUrl }: Team, wanted: number): Promise<void> {
  const [found] = await bench.postgres.query<{ rows: number; different: number }>(
    databaseUrl,
    "SELECT count(*)::int AS rows, count(DISTINCT i)::int AS different FROM effects",
  );
  if (found!.rows === wanted && found!.different === wanted) return;
  throw new Error(`${system.name}: ${wanted} jobs left ${found!.rows} rows, ${found!.different} of them different`);
}

const TAKEN = 5_000;

export const depth: Scenario = {
  name: "depth",
  about: "claims from 1,000,000 waiting jobs against 10,000, and beside a transaction that somebody leaves open",
  async run(bench) {
    const deep = bench.sizes.quick ? 50_000 : 1_000_000;
    return [await claimsByDepth(bench, deep), ...(await besideOpenTransaction(bench))];
  },
};

async function claimsByDepth(bench: Bench, deep: number): Promise<Row> {
  const [few, many] = [10_000, deep].map((count) => ({ count, name: `mesh, ${count.toLocaleString("en")} waiting` })) as [Depth, Depth];
  const teams = await bench.teams([{ ...mesh, name: many.name }, { ...mesh, name: few.name, part: "peer" }], ["queue"]);
  const loaded = new Map<Team, number>();
  const figures = await bench.interleave(teams, async (team) => {
    const program = team.programs[0]!;
    const before = loaded.get(team) ?? 0;
    const to = before === 0 ? (team.system.part === "ours" ? many : few).count : before + TAKEN;
    await program.run("load", { from: before + 1, to });
    loaded.set(team, to);
    await bench.postgres.query(team.databaseUrl, "VACUUM ANALYZE");
    const { ms } = await program.run<Drained>("take", { count: TAKEN, ms: DRAIN_LIMIT_MS });
    return ((TAKEN - 1) / ms) * 1_000;
  });
  const measure = `the first ${TAKEN.toLocaleString("en")} of ${deep.toLocaleString("en")} waiting jobs`;
  return { scenario: "depth", measure, unit: "jobs/s", better: "more", goal: { ratio: 0.8 }, results: resultsOf(figures, (rate) => rate) };
}

interface Depth {
  readonly count: number;
  readonly name: string;
}

async function besideOpenTransaction(bench: Bench): Promise<Row[]> {
  const teams = await bench.teams([{ ...mesh, name: "mesh, foreign transaction open" }, { ...mesh, name: "mesh, none open", part: "peer" }], ["queue", "queue"]);
  const rate = 1_000;
  const ms = bench.sizes.roundMs * (bench.sizes.quick ? 2 : 10);
  const figures = await bench.interleave(teams, async ({ system, databaseUrl, programs: [consumer, emitter] }, round) => {
    const end = system.part === "ours" ? await bench.postgres.openTransaction(databaseUrl) : () => Promise.resolve();
    const total = (rate * ms) / 1_000;
    const [from, to] = [round * total, (round + 1) * total - 1];
    await consumer!.run("arm", { from, to, ms: ms + DRAIN_LIMIT_MS });
    if (round === 0) await consumer!.run("open");
    await emitter!.run("emit", { from, rate, ms });
    const { latencies } = await consumer!.run<Drained>("arrived");
    await end();
    return latencies;
  });
  const measure = `emit to handler, 1,000/s for ${ms / 1_000} s beside an open transaction: p99`;
  return [{ scenario: "depth", measure, unit: "ms", better: "less", results: resultsOf(figures, ({ p99 }) => p99) }];
}
