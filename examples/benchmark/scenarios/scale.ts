import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, Team } from "../bed.js";
import { clock } from "../measure.js";
import type { Result, Row, Scenario } from "../scenario.js";
import { meshCluster } from "../systems.js";

const NODES_A_PROCESS = 25;
/** One in the pool, the one beyond it that goes before all others, and one that listens. */
const CONNECTIONS_A_NODE = 3;
const MEET_LIMIT_MS = 120_000;
/** Two heartbeats, in which the nodes read what they have not read about the last that came. */
const SETTLE_MS = 21_000;
/** Within which sessions report what they have read. */
const REPORT_MS = 11_000;
/** Larger clusters would take too long for a restart, one node after another. */
const MOST_ROLLED = 200;
const COUNTED = ["statements", "rows read", "notifications sent", "notifications delivered"] as const;
type Counts = Readonly<Record<(typeof COUNTED)[number], number>>;

interface Phases {
  /** A second. */
  readonly rest: Counts;
  /** For each node, beyond what the cluster does at rest in the time that it takes. */
  readonly join: Counts;
  readonly roll: Counts | null;
}

/** Of the power at rest: 1 is linear. */
const LINEAR = 1.15;

export const scale: Scenario = {
  name: "scale",
  about: "what 10, 50, 200 and 500 nodes ask of Postgres at rest, while joining and, up to 200, during a rolling restart",
  async run(bench) {
    const wanted = bench.sizes.quick ? [5, 20] : [10, 50, 200, 500];
    const room = (await bench.postgres.maxConnections()) - 20;
    const sizes = wanted.filter((size) => size * CONNECTIONS_A_NODE <= room);
    for (const size of wanted) if (!sizes.includes(size)) bench.say(`skipped: ${size} nodes need ${size * CONNECTIONS_A_NODE} connections, max_connections leaves ${room}`);
    const measured = new Map<number, Phases>();
    for (const size of sizes) {
      const started = performance.now();
      const phases = await measureSize(bench, size).catch((error: Error) => error);
      await bench.clear();
      // What smaller clusters have shown stands, whatever becomes of a larger one.
      if (phases instanceof Error) bench.say(`${size} nodes: ${phases.message}`);
      if (phases === null || phases instanceof Error) break;
      bench.say(`${size} nodes measured in ${Math.round((performance.now() - started) / 1_000)} s`);
      measured.set(size, phases);
    }
    if (measured.size === 0) return [];
    return COUNTED.flatMap((counted) => [
      growth(measured, `at rest: ${counted}, all nodes together`, `${counted}/s`, ({ rest }) => rest[counted]),
      ...(counted === "notifications sent" ? [] : [steepest(measured, counted)]),
      growth(measured, `joining one after another: ${counted} for each node`, counted, ({ join }) => join[counted]),
      growth(measured, `rolling restart: ${counted} for each node`, counted, ({ roll }) => roll?.[counted] ?? null),
    ]);
  },
};

async function measureSize(bench: Bench, size: number): Promise<Phases | null> {
  const processes = Math.ceil(size / NODES_A_PROCESS);
  const team = (await bench.team(meshCluster, Array.from({ length: processes }, () => "cluster")))!;
  if ((await bench.postgres.counters(team.databaseUrl)) === null) {
    bench.say("skipped: scale needs pg_stat_statements in shared_preload_libraries");
    return null;
  }
  const start = await snapshot(bench, team);
  for (const [index, program] of team.programs.entries()) {
    await program.run("join", { count: Math.min(NODES_A_PROCESS, size - index * NODES_A_PROCESS) });
  }
  await allMeet(team, size);
  const joiningMs = clock() - start.at;
  await sleep(SETTLE_MS);
  const joined = await snapshot(bench, team);
  await sleep(bench.sizes.quick ? 12_000 : 30_000);
  const rested = await snapshot(bench, team);
  const rest = perSecond(joined, rested, size);
  // While they join, half of the nodes are there on average, and listen.
  const join = forEachNode(start, joined, { size, listening: size / 2, restMs: SETTLE_MS + joiningMs / 2, rest });
  if (size > MOST_ROLLED) return { rest, join, roll: null };
  for (const program of team.programs) await program.run("roll");
  await allMeet(team, size);
  await sleep(REPORT_MS);
  const rolled = await snapshot(bench, team);
  return { rest, join, roll: forEachNode(rested, rolled, { size, listening: size - 1, restMs: rolled.at - rested.at, rest }) };
}

interface Snapshot {
  /** On the common clock. */
  readonly at: number;
  readonly statements: number;
  readonly rowsRead: number;
  readonly notifications: number;
}

async function snapshot({ postgres }: Bench, { databaseUrl }: Team): Promise<Snapshot> {
  const rowsRead = await postgres.rowsRead(databaseUrl);
  return { at: clock(), rowsRead, ...(await postgres.counters(databaseUrl))! };
}

/** Each node listens on one connection, and Postgres tells each connection of the database that listens of each notification. */
function between(before: Snapshot, after: Snapshot, listening: number): Counts {
  const notifications = after.notifications - before.notifications;
  return {
    statements: after.statements - before.statements,
    "rows read": after.rowsRead - before.rowsRead,
    "notifications sent": notifications,
    "notifications delivered": notifications * listening,
  };
}

const mapped = (counts: Counts, value: (counted: keyof Counts) => number): Counts =>
  Object.fromEntries(COUNTED.map((counted) => [counted, value(counted)])) as Record<keyof Counts, number>;

function perSecond(before: Snapshot, after: Snapshot, size: number): Counts {
  const counts = between(before, after, size);
  return mapped(counts, (counted) => (counts[counted] * 1_000) / (after.at - before.at));
}

interface Change {
  readonly size: number;
  readonly listening: number;
  /** For how long the whole cluster did what it does at rest meanwhile. */
  readonly restMs: number;
  readonly rest: Counts;
}

function forEachNode(before: Snapshot, after: Snapshot, { size, listening, restMs, rest }: Change): Counts {
  const counts = between(before, after, listening);
  return mapped(counts, (counted) => Math.max(0, counts[counted] - (rest[counted] * restMs) / 1_000) / size);
}

async function allMeet(team: Team, size: number): Promise<void> {
  for (const end = performance.now() + MEET_LIMIT_MS; ; await sleep(100)) {
    const fewest = Math.min(...(await Promise.all(team.programs.map((program) => program.run<number>("peers")))));
    if (fewest >= size - 1) return;
    if (performance.now() > end) throw new Error(`a node sees ${fewest} of ${size - 1} peers`);
  }
}

interface Point {
  readonly size: number;
  readonly value: number;
}

function power(from: Point, to: Point): number {
  return Math.log(to.value / from.value) / Math.log(to.size / from.size);
}

function growth(measured: ReadonlyMap<number, Phases>, measure: string, unit: string, value: (phases: Phases) => number | null): Row {
  const points = [...measured].map(([size, phases]) => ({ size, value: value(phases) })).filter((point): point is Point => point.value !== null);
  const results: Result[] = points.map((point) => ({ system: `${point.size} nodes`, part: "shown", values: [point.value] }));
  const overall = power(points[0]!, points.at(-1)!);
  const note = Number.isFinite(overall) ? { note: `grows with nodes^${overall.toFixed(2)}` } : {};
  return { scenario: "scale", measure, unit, better: "less", results, ...note };
}

/** Between neighbouring sizes: what is constant flattens the growth of small clusters, and would hide that of large ones. */
function steepest(measured: ReadonlyMap<number, Phases>, counted: keyof Counts): Row {
  const points = [...measured].map(([size, { rest }]) => ({ size, value: rest[counted] }));
  const powers = points.slice(1).map((point, index) => power(points[index]!, point));
  const values = powers.every(Number.isFinite) && powers.length > 0 ? [Math.max(...powers)] : [];
  const goal = { ours: LINEAR };
  return { scenario: "scale", measure: `at rest: ${counted}, steepest growth`, unit: "power of nodes", better: "less", goal, results: [{ system: "mesh", part: "ours", values }] };
}
