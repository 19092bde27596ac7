import { randomBytes } from "node:crypto";
import { createLogger, startEmbeddedPostgres } from "@chimpbase/mesh";
import { eventLatency, eventRates, idleCost, localCalls, remoteCalls, type Line, type Settings } from "./scenarios.js";

const SCENARIOS: Readonly<Record<string, (settings: Settings) => Promise<Line[]>>> = {
  local: localCalls,
  remote: remoteCalls,
  latency: eventLatency,
  events: eventRates,
  idle: idleCost,
};

const chosen = optionValues("--only");
const quick = process.argv.includes("--quick");
const unknown = chosen.filter((name) => !(name in SCENARIOS));
if (unknown.length > 0) throw new Error(`--only ${unknown.join()}: the scenarios are ${Object.keys(SCENARIOS).join(", ")}`);

process.env["MESH_TOKEN"] ??= randomBytes(24).toString("hex");
process.env["HOSTNAME"] = "127.0.0.1";
const given = process.env["DATABASE_URL"];
const counting = { shared_preload_libraries: "pg_stat_statements" };
const postgres = given === undefined ? await startEmbeddedPostgres(true, createLogger({ level: "error" }), counting) : null;
try {
  const settings: Settings = { databaseUrl: postgres?.url ?? given!, roundMs: quick ? 1_000 : 4_000 };
  process.stdout.write(`Node ${process.version}\n\n| scenario | here | floor: node:http and undici |\n|---|---|---|\n`);
  for (const [name, scenario] of Object.entries(SCENARIOS)) {
    if (chosen.length > 0 && !chosen.includes(name)) continue;
    for (const { scenario: title, ours, floor } of await scenario(settings)) {
      process.stdout.write(`| ${title} | ${ours} | ${floor ?? ""} |\n`);
    }
  }
} finally {
  await postgres?.stop();
}

function optionValues(option: string): string[] {
  const at = process.argv.indexOf(option);
  return at === -1 ? [] : (process.argv[at + 1] ?? "").split(",").filter((name) => name !== "");
}
