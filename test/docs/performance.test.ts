import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { barChart } from "../../examples/benchmark/chart.js";
import { holds } from "../../examples/benchmark/install.js";
import { readOptions } from "../../examples/benchmark/options.js";
import { describeMachine, markdown } from "../../examples/benchmark/report.js";
import { ratioOf, reached, type Row } from "../../examples/benchmark/scenario.js";
import { SCENARIOS } from "../../examples/benchmark/scenarios/index.js";

const ROOT = resolve(import.meta.dirname, "../../..");
const NAMES = SCENARIOS.map(({ name }) => name);

const ROW: Row = {
  scenario: "remote",
  measure: "call & answer",
  unit: "calls/s",
  better: "more",
  goal: { ratio: 2 },
  results: [
    { system: "mesh", part: "ours", values: [900, 300, 600] },
    { system: "slower peer", part: "peer", values: [200, 200, 200] },
    { system: "better peer", part: "peer", values: [300, 290, 310] },
    { system: "floor", part: "shown", values: [5_000] },
  ],
};

test("the performance page tells of every scenario of the benchmark, and of no other", async () => {
  const page = await readFile(join(ROOT, "docs/performance.md"), "utf8");
  const table = page.slice(page.indexOf("## Scenarios"), page.indexOf("## How the peers are set up"));
  assert.deepEqual([...table.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => name), NAMES);
});

test("what the benchmark measures beside is no dependency of the package, and its lock file names no registry", async () => {
  const read = async (path: string): Promise<Record<string, Record<string, unknown>>> => JSON.parse(await readFile(join(ROOT, path), "utf8"));
  const [own, peers] = [await read("package.json"), await read("examples/benchmark/package.json")];
  const ours = Object.keys({ ...own["dependencies"], ...own["devDependencies"], ...own["peerDependencies"] });
  // The driver and the decorators' metadata, which the mesh uses itself.
  const shared = Object.keys(peers["dependencies"]!).filter((name) => ours.includes(name));
  assert.deepEqual(shared.sort(), ["pg", "reflect-metadata"]);
  assert.equal(peers["private"], true);
  assert.doesNotMatch(await readFile(join(ROOT, "examples/benchmark/package-lock.json"), "utf8"), /"resolved"/);
});

test("the peers are installed anew where one is missing or of another version, but not for want of what other machines need", () => {
  const wanted = { "": { version: "1" }, a: { version: "1.0.0" }, b: { version: "1.0.0", optional: true } };
  assert.ok(holds(wanted, { a: { version: "1.0.0" } }));
  assert.ok(!holds(wanted, { a: { version: "1.0.1" } }));
  assert.ok(!holds(wanted, { a: { version: "1.0.0" }, b: { version: "0.9.0" } }));
  assert.ok(!holds(wanted, { b: { version: "1.0.0" } }));
});

test("a ratio is that of the medians, ours by the best peer's, and a floor is no peer", () => {
  assert.equal(ratioOf(ROW), 2);
  assert.equal(reached(ROW), true);
  assert.equal(ratioOf({ ...ROW, better: "less" }), 3);
  assert.equal(reached({ ...ROW, better: "less" }), false);
  assert.equal(reached({ ...ROW, goal: { ours: 601 } }), false);
});

test("without a peer that ran there is no ratio, and its goal is neither reached nor missed", () => {
  const alone = { ...ROW, results: [ROW.results[0]!, { system: "failed peer", part: "peer" as const, values: [] }] };
  assert.equal(ratioOf(alone), null);
  assert.equal(reached(alone), null);
  assert.equal(reached({ ...alone, goal: { ours: 500 } }), true);
});

test("the report shows medians with their spread, and the chart is text that XML allows", () => {
  const machine = describeMachine("18.4", "quick", 3);
  assert.match(markdown(machine, [ROW]), /\| 600 \(300 to 900\) \| slower peer 200 \(200 to 200\); .* \| 2× \| ≥ 2× ✓ \|/);
  const chart = barChart(machine, "remote", [ROW]);
  assert.match(chart, /call &amp; answer/);
  assert.equal(chart.match(/<rect x=/g)?.length, 4);
});

test("a scenario or a number of rounds that there is not is refused by name", () => {
  assert.throws(() => readOptions(["--only", "remote,nothing"], NAMES), /--only nothing: the scenarios are remote, /);
  assert.throws(() => readOptions(["--rounds", "0"], NAMES), /--rounds 0: give a whole number from 1 to 100/);
  assert.deepEqual(readOptions(["--only", "remote", "--quick"], NAMES).only, ["remote"]);
});
