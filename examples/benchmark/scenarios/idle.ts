import { setTimeout as sleep } from "node:timers/promises";
import type { Usage } from "../programs/usage.js";
import type { Row, Scenario } from "../scenario.js";
import { bareNode, mesh } from "../systems.js";

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
