import { resultsOf, type Bench, type Team } from "../bed.js";
import type { Drained } from "../inbox.js";
import type { Row, Scenario } from "../scenario.js";
import { graphileWorker, mesh, moleculerChannels, pgBoss, sqlFloor, transactionFloor } from "../systems.js";

const DRAIN_LIMIT_MS = 240_000;
/** What goes through each system before its first round, as a share of a round. */
const WARM_UP = 0.2;
/** Jobs in one transaction of a pg-boss worker. */
const TOGETHER = 100;

interface Drain {
  readonly loadPerSecond: number;
  /** Until the last one is handled. */
  readonly perSecond: number;
  /** Until none is left in the database; NaN where they are in none. */
  readonly completedPerSecond: number;
}

/** `count` messages for each round, numbered without gaps after those of the warm-up. */
async function drainRound(bench: Bench, team: Team, round: number, count: number): Promise<Drain> {
  const warmUp = count * WARM_UP;
  if (round === 0) await loadAndDrain(bench, team, 1, warmUp);
  return loadAndDrain(bench, team, warmUp + round * count + 1, count);
}

/** Loads `count` messages, lets Postgres tidy up, and consumes them. */
async function loadAndDrain(bench: Bench, { system, programs: [program], databaseUrl }: Team, from: number, count: number): Promise<Drain> {
  const to = from + count - 1;
  const started = performance.now();
  await program!.run("load", { from, to });
  const loadMs = performance.now() - started;
  await bench.postgres.query(databaseUrl, "VACUUM ANALYZE");
  await program!.run("arm", { from, to, ms: DRAIN_LIMIT_MS });
  await program!.run("open");
  const { ms, at } = await program!.run<Drained>("arrived");
  const { uncompleted } = system;
  const emptyAt = uncompleted === undefined ? NaN : await bench.postgres.whenEmpty(databaseUrl, uncompleted, DRAIN_LIMIT_MS);
  await program!.run("close");
  const perSecond = (taken: number): number => ((count - 1) / taken) * 1_000;
  return { loadPerSecond: (count / loadMs) * 1_000, perSecond: perSecond(ms), completedPerSecond: perSecond(ms + emptyAt - at) };
}

export const queue: Scenario = {
  name: "queue",
  about: "50,000 waiting jobs with a trivial handler, worked off by one node",
  async run(bench) {
    const count = bench.sizes.quick ? 5_000 : 50_000;
    const systems = [mesh, graphileWorker, pgBoss, { ...pgBoss, name: "pg-boss, 500 a fetch", variant: "500" }, ...(await moleculerChannels("shown")), sqlFloor];
    const figures = await bench.interleave(await bench.teams(systems, ["queue"]), (team, round) => drainRound(bench, team, round, count));
    const inDatabase = new Map([...figures].filter(([{ system }]) => system.uncompleted !== undefined));
    const base = { scenario: "queue", better: "more" } as const;
    const measure = `${count.toLocaleString("en")} waiting jobs, one node`;
    const emitted = resultsOf(figures, ({ loadPerSecond }) => loadPerSecond).slice(0, 1);
    return [
      { ...base, measure, unit: "jobs/s", goal: { ratio: 1.5 }, results: resultsOf(figures, ({ perSecond }) => perSecond) },
      { ...base, measure: "the same until none is left in the database", unit: "jobs/s", results: resultsOf(inDatabase, ({ completedPerSecond }) => completedPerSecond) },
      { ...base, measure: "emitting them, 500 at a time", unit: "events/s", results: emitted },
    ];
  },
};

export const exactlyOnce: Scenario = {
  name: "exactly-once",
  about: "waiting jobs whose handler inserts one row, in one transaction with the job's completion",
  async run(bench) {
    const count = bench.sizes.quick ? 1_000 : 10_000;
    const atLeastOnce = { ...graphileWorker, name: "graphile-worker, own transaction" };
    const together = { ...pgBoss, name: "pg-boss, transactional workers", variant: `${TOGETHER}:transactional` };
    const teams = await bench.teams([mesh, pgBoss, together, atLeastOnce, transactionFloor], ["queue"], { effects: true });
    const figures = await bench.interleave(teams, async (team, round) => {
      const drain = await drainRound(bench, team, round, count);
      await checkEffects(bench, team, count * (WARM_UP + round + 1));
      return drain;
    });
    const results = resultsOf(figures, ({ perSecond }) => perSecond);
    const against = (peer: string, promise: string): Row => ({
      scenario: "exactly-once",
      measure: `jobs that insert one row, beside a peer that promises ${promise}`,
      unit: "jobs/s",
      better: "more",
      goal: { ratio: 2 },
      results: results.filter(({ system, part }) => part !== "peer" || system === peer),
    });
    return [
      against(pgBoss.name, "the same"),
      against(together.name, `it for ${TOGETHER} jobs together, of which one that fails undoes all`),
      against(atLeastOnce.name, "at least once"),
    ];
  },
};

/** Each of the jobs 1 to `wanted` has written its row, once. */
export async function checkEffects(bench: Bench, { system, databaseUrl }: Team, wanted: number): Promise<void> {
  const [found] = await bench.postgres.query<{ rows: number; different: number }>(
    databaseUrl,
    "SELECT count(*)::int AS rows, count(DISTINCT i)::int AS different FROM effects",
  );
  if (found!.rows === wanted && found!.different === wanted) return;
  throw new Error(`${system.name}: ${wanted} jobs left ${found!.rows} rows, ${found!.different} of them different`);
}

/** Of the mesh. */
export async function waitingJobs(bench: Bench, { databaseUrl }: Team): Promise<number> {
  const [row] = await bench.postgres.query<{ jobs: number }>(databaseUrl, "SELECT count(*)::int AS jobs FROM _chimpbase_mesh_jobs");
  return row!.jobs;
}
