import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, type Team } from "../../examples/benchmark/bed.js";
import { Inbox } from "../../examples/benchmark/inbox.js";
import { pace } from "../../examples/benchmark/measure.js";
import type { Postgres } from "../../examples/benchmark/postgres.js";
import type { Message } from "../../examples/benchmark/roles.js";
import { graphileWorker, lineFloor, mesh, meshPlainEmit, moleculerTcp, pgBoss, type System } from "../../examples/benchmark/systems.js";

function bed(rounds: number): { readonly bench: Bench; readonly said: string[] } {
  const said: string[] = [];
  return { bench: new Bench({ rounds, roundMs: 1, quick: true }, {} as Postgres, (line) => void said.push(line)), said };
}

const team = (system: System): Team => ({ system, databaseUrl: "", programs: [] });

async function opened(): Promise<{ readonly inbox: Inbox; readonly deliver: (message: Message) => void }> {
  let deliver!: (message: Message) => void;
  const inbox = new Inbox(async (handler) => {
    deliver = handler;
    return async () => undefined;
  });
  await inbox.open();
  return { inbox, deliver };
}

test("the systems take turns, each round begins with another one, and none always has the same one before it", async () => {
  const { bench } = bed(4);
  const teams = [mesh, graphileWorker, pgBoss, lineFloor].map(team);
  const order: string[] = [];
  await bench.interleave(teams, async ({ system }) => order.push(system.name));
  const rounds = [0, 1, 2, 3].map((round) => order.slice(round * 4, round * 4 + 4));
  for (const round of rounds) assert.deepEqual([...round].sort(), teams.map(({ system }) => system.name).sort());
  assert.deepEqual(rounds.map(([first]) => first), teams.map(({ system }) => system.name));
  for (const { system } of teams) {
    const before = rounds.map((round) => round[round.indexOf(system.name) - 1]).filter((name) => name !== undefined);
    assert.ok(new Set(before).size > 1, `${system.name} always comes after ${before[0]}`);
  }
});

test("a peer that fails is left out with the figures that it had, and a line says why", async () => {
  const { bench, said } = bed(3);
  const [ours, peer] = [team(mesh), team(pgBoss)];
  const figures = await bench.interleave([ours, peer], async ({ system }, round) => {
    if (system === pgBoss && round === 1) throw new Error("job 3 ran twice\nat a line");
    return round;
  });
  assert.deepEqual([...figures], [[ours, [0, 1, 2]], [peer, []]]);
  assert.deepEqual(said, ["left out: pg-boss: job 3 ran twice"]);
});

test("a failure of the mesh in any of its variants ends the scenario", async () => {
  for (const variant of [mesh, meshPlainEmit, { ...mesh, name: "mesh, unvalidated", part: "peer" as const }]) {
    const failing = bed(1).bench.interleave([team(moleculerTcp), team(variant)], async ({ system }) => {
      if (system === variant) throw new Error("2 rows of 3 transactions");
    });
    await assert.rejects(failing, /2 rows of 3 transactions/, variant.name);
  }
});

test("a run that was broken off begins nothing more", async () => {
  const { bench } = bed(2);
  const measured: number[] = [];
  const run = bench.interleave([team(mesh)], async (_, round) => {
    measured.push(round);
    await bench.end();
  });
  await assert.rejects(run, /broken off/);
  await assert.rejects(bench.team(mesh, ["queue"]), /broken off/);
  assert.deepEqual(measured, [0]);
});

test("expected messages may come in any order, and the latencies are those from when each was due", async () => {
  const { inbox, deliver } = await opened();
  inbox.arm(1, 3, 60_000);
  for (const i of [3, 1, 2]) deliver({ i, at: Number(process.hrtime.bigint()) / 1e6 - 50 });
  const { latencies } = await inbox.arrived();
  assert.ok(latencies.p50 >= 50 && latencies.p50 < 10_000);
  await inbox.close();
});

test("a message that comes twice, is none of those expected, or comes after the last fails the measurement", async () => {
  for (const sent of [[1, 1], [1, 4]]) {
    const { inbox, deliver } = await opened();
    inbox.arm(1, 3, 60_000);
    for (const i of sent) deliver({ i });
    await assert.rejects(inbox.arrived(), /came twice, or was not to come/);
  }
  const { inbox, deliver } = await opened();
  inbox.arm(1, 2, 60_000);
  for (const i of [1, 2, 2]) deliver({ i });
  await inbox.arrived();
  await assert.rejects(inbox.close(), /message 2 came after all/);
});

test("messages that do not come fail the measurement in time", async () => {
  const { inbox, deliver } = await opened();
  inbox.arm(1, 3, 20);
  deliver({ i: 1 });
  await assert.rejects(inbox.arrived(), /1 of 3 messages came within 20 ms/);
});

test("what comes at a rate is due at even distances, leaves nothing out, and fails with the first failure", async () => {
  const due: number[] = [];
  assert.equal(await pace(async (i, dueAt) => void (due[i] = dueAt), 1_000, 50), 50);
  assert.equal(due.length, 50);
  for (let i = 1; i < due.length; i++) assert.ok(Math.abs(due[i]! - due[0]! - i) < 1e-3);
  await assert.rejects(pace(async (i) => i === 3 && Promise.reject(new Error("refused")), 1_000, 50), /refused/);
});
