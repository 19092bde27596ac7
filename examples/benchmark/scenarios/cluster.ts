import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, Team } from "../bed.js";
import type { Counters } from "../postgres.js";
import type { Usage } from "../programs/usage.js";
import type { Result, Row, Scenario } from "../scenario.js";
import { bareNode, mesh, meshCluster } from "../systems.js";

export const idle: Scenario = {
  name: "idle",
  about: "a node that nobody calls: statements, processor time, memory over a process without the mesh",
  async run(bench) {
    const team = (await bench.team(mesh, ["idle"]))!;
    const [node] = team.programs;
    const [bare] = (await bench.team(bareNode, ["bare"]))!.programs;
    const ms = bench.sizes.quick ? 10_000 : 30_000;
    await sleep(3_000);
    const [statements, cpu, heap]: number[][] = [[], [], []];
    for (let round = 0; round < Math.min(bench.sizes.rounds, 3); round++) {
      const [counted, used] = [await bench.postgres.counters(team.databaseUrl), await node!.run<Usage>("usage")];
      await sleep(ms);
      const [countedThen, usedThen] = [await bench.postgres.counters(team.databaseUrl), await node!.run<Usage>("usage")];
      if (counted !== null && countedThen !== null) statements!.push((countedThen.statements - counted.statements) / (ms / 1_000));
      cpu!.push(((usedThen.cpuMs - used.cpuMs) / ms) * 100);
      heap!.push((usedThen.heapBytes - (await bare!.run<Usage>("usage")).heapBytes) / 2 ** 20);
    }
    if (statements!.length === 0) bench.say("statements are not counted: this Postgres has no pg_stat_statements");
    const row = (measure: string, unit: string, limit: number, values: readonly number[]): Row => ({
      scenario: "idle", measure, unit, better: "less", goal: { ours: limit }, results: [{ system: "mesh", part: "ours", values }],
    });
    return [
      row("an idle node: statements", "statements/s", 1, statements!),
      row("an idle node: processor", "% of a core", 1, cpu!),
      row("an idle node: heap over bare Node", "MB", 30, heap!),
    ];
  },
};

const NODES_A_PROCESS = 25;
/** One in the pool and one that listens. */
const CONNECTIONS_A_NODE = 2;
const MEET_LIMIT_MS = 120_000;
/** One heartbeat, in which the nodes read what they have not read about the last that came. */
const SETTLE_MS = 10_000;
const COUNTED = ["statements", "rows", "notifications"] as const;

interface Phases {
  readonly rest: Counters;
  readonly join: Counters;
  readonly roll: Counters;
}

export const scale: Scenario = {
  name: "scale",
  about: "what 10, 50 and 200 nodes (500 with --full) ask of Postgres at rest, while joining and during a rolling restart",
  async run(bench) {
    const wanted = bench.sizes.quick ? [5, 10, 20] : [10, 50, 200, ...(bench.sizes.full ? [500] : [])];
    const room = (await bench.postgres.maxConnections()) - 20;
    const sizes = wanted.filter((size) => size * CONNECTIONS_A_NODE <= room);
    for (const size of wanted) if (!sizes.includes(size)) bench.say(`skipped: ${size} nodes need ${size * CONNECTIONS_A_NODE} connections, max_connections leaves ${room}`);
    const measured = new Map<number, Phases>();
    for (const size of sizes) {
      const phases = await measureSize(bench, size).catch((error: Error) => error);
      await bench.clear();
      // What smaller clusters have shown stands, whatever becomes of a larger one.
      if (phases instanceof Error) bench.say(`${size} nodes: ${phases.message}`);
      if (phases === null || phases instanceof Error) break;
      bench.say(`${size} nodes measured`);
      measured.set(size, phases);
    }
    if (measured.size === 0) return [];
    return COUNTED.flatMap((counted) => [
      growth(measured, `at rest: ${counted} of all nodes`, `${counted}/s`, ({ rest }) => rest[counted]),
      growth(measured, `joining one after another: ${counted} for each node`, counted, ({ join }) => join[counted]),
      growth(measured, `rolling restart: ${counted} for each node`, counted, ({ roll }) => roll[counted]),
    ]);
  },
};

async function measureSize(bench: Bench, size: number): Promise<Phases | null> {
  const processes = Math.ceil(size / NODES_A_PROCESS);
  const team = (await bench.team(meshCluster, Array.from({ length: processes }, () => "cluster")))!;
  const count = async (): Promise<Counters | null> => bench.postgres.counters(team.databaseUrl);
  const start = await count();
  if (start === null) {
    bench.say("skipped: scale needs pg_stat_statements in shared_preload_libraries");
    return null;
  }
  for (const [index, program] of team.programs.entries()) {
    await program.run("join", { count: Math.min(NODES_A_PROCESS, size - index * NODES_A_PROCESS) });
  }
  await allMeet(team, size);
  await sleep(bench.sizes.quick ? 1_000 : SETTLE_MS);
  const joined = (await count())!;
  const restMs = bench.sizes.quick ? 12_000 : 30_000;
  await sleep(restMs);
  const rested = (await count())!;
  for (const program of team.programs) await program.run("roll");
  await allMeet(team, size);
  const rolled = (await count())!;
  return { join: between(start, joined, size), rest: between(joined, rested, restMs / 1_000), roll: between(rested, rolled, size) };
}

function between(before: Counters, after: Counters, divisor: number): Counters {
  const part = (name: keyof Counters): number => (after[name] - before[name]) / divisor;
  return { statements: part("statements"), rows: part("rows"), notifications: part("notifications") };
}

async function allMeet(team: Team, size: number): Promise<void> {
  for (const end = performance.now() + MEET_LIMIT_MS; ; await sleep(100)) {
    const fewest = Math.min(...(await Promise.all(team.programs.map((program) => program.run<number>("peers")))));
    if (fewest >= size - 1) return;
    if (performance.now() > end) throw new Error(`a node sees ${fewest} of ${size - 1} peers`);
  }
}

function growth(measured: ReadonlyMap<number, Phases>, measure: string, unit: string, value: (phases: Phases) => number): Row {
  const points = [...measured].map(([size, phases]) => ({ size, value: value(phases) }));
  const results: Result[] = points.map((point) => ({ system: `${point.size} nodes`, part: "shown", values: [point.value] }));
  const [first, last] = [points[0]!, points.at(-1)!];
  const power = Math.log(last.value / first.value) / Math.log(last.size / first.size);
  const note = Number.isFinite(power) ? `grows with nodes^${power.toFixed(2)}` : undefined;
  return { scenario: "scale", measure, unit, better: "less", results, ...(note === undefined ? {} : { note }) };
}
