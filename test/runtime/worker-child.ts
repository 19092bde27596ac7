/** A node in a process of its own, to be killed or frozen. Says on standard output what it runs: one JSON payload a line. */
import { openPostgres } from "#mesh/storage/postgres.js";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { createWorkerEngine } from "#mesh/runtime/worker.js";
import { fakeDispatcher, quiet, sleep, TEST_DEFAULTS, worker } from "./worker-nodes.js";

const [url, queue, leaseMs, behaviour] = process.argv.slice(2) as [string, string, string, string];

const storage = await openPostgres({ url, log: quiet() });
const dispatcher = fakeDispatcher(storage, new Cancellation());
const defaults = { ...TEST_DEFAULTS, leaseMs: Number(leaseMs), concurrency: 2, maxAttempts: 3, pollIntervalMs: 1_000 };
const engine = createWorkerEngine({ storage, dispatcher, nodeId: "child", log: quiet(), defaults });

await engine.attach([worker(queue, async (scope, payload) => {
  if (behaviour === "transaction") await scope.session!.query("INSERT INTO effects (payload) VALUES ($1)", [JSON.stringify(payload)]);
  process.stdout.write(`${JSON.stringify(payload)}\n`);
  if (behaviour === "suicide" && payload === "poison") process.kill(process.pid, "SIGKILL");
  // Frozen before it comes here, it ends as soon as it goes on.
  if (behaviour === "transaction") return sleep(300);
  if (behaviour !== "suicide") await sleep(60_000);
})]);
await engine.start();
process.on("SIGTERM", () => process.stdout.write(`${JSON.stringify({ inFlight: engine.inFlight() })}\n`));
