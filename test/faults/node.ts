import { setTimeout as sleep } from "node:timers/promises";
import { chimpbaseMesh, createHost } from "@chimpbase/mesh";
import type { LogLevel } from "@chimpbase/mesh";
import { setClock } from "../cluster/clock.js";
import { serveCommands } from "../cluster/process.js";
import { now } from "./history.js";
import { Journal } from "./journal.js";
import { KeptBus } from "./kept-bus.js";
import { LoadGenerator } from "./load.js";
import { FaultServices, type Payload } from "./services.js";
import { watchStalls } from "./stalls.js";
import type { Call, Emit } from "./history.js";
import { HEARTBEAT_MS, LEASE_MS, OFFLINE_AFTER_MS, POOL_SIZE, QUERY_LIMIT_MS } from "./protocol.js";
import type { Load, Memory, NodeCommands, NodeConfig, Saturation } from "./protocol.js";

/** One node under faults: makes load as its parent says, and reports what became of each operation. */
const { name: node, database, port, advertisedUrl, rpcAuth, clockMs, retentionMs } = JSON.parse(process.env["NODE_CONFIG"]!) as NodeConfig;
setClock(clockMs);
const journal = new Journal();
const stopWatching = watchStalls(node, (entry) => journal.add(entry));
const generator = new LoadGenerator((operations) => journal.add({ kind: "omission", node, operations, at: now() }));
const sent = { balanced: 0, broadcast: 0, transaction: 0, kept: 0 };
let kept: KeptBus | undefined;
const faults = new FaultServices(node, journal);

const host = createHost({
  name: node,
  database: { url: database, poolSize: POOL_SIZE },
  server: { port, host: "127.0.0.1" },
  worker: { leaseMs: LEASE_MS, retryDelayMs: 100, pollIntervalMs: 200, maxAttempts: 20 },
  secrets: { values: { MESH_TOKEN: "faults" } },
  logger: { level: (process.env["FAULTS_LOG"] ?? "silent") as LogLevel },
});
host.register(faults.worker, chimpbaseMesh({ services: [...faults.services], meshToken: "MESH_TOKEN", rpcAuth, advertisedUrl, heartbeatMs: HEARTBEAT_MS, offlineAfterMs: OFFLINE_AFTER_MS, gcAfterMs: 60_000 }));

interface Outcome<T> {
  readonly startedAt: number;
  readonly endedAt: number;
  readonly error: string | null;
  readonly retryable: boolean | null;
  readonly failedOn: string | null;
  readonly value: T | null;
}

async function outcome<T>(work: () => Promise<T>): Promise<Outcome<T>> {
  const startedAt = now();
  try {
    const value = await work();
    return { startedAt, endedAt: now(), error: null, retryable: null, failedOn: null, value };
  } catch (error) {
    const { code, message, retryable = null, nodeId: failedOn = null } = error as Error & { code?: string; retryable?: boolean; nodeId?: string };
    return { startedAt, endedAt: now(), error: code === "ROLLED_BACK" ? code : `${code}: ${message}`, retryable, failedOn, value: null };
  }
}

async function call({ strategy = "round-robin", nodeId, timeoutMs = 5_000, workMs = 5, burnMs }: Load, attempts: number): Promise<void> {
  const options = { strategy, timeoutMs, retry: { attempts, delayMs: 20 }, ...(nodeId === undefined ? {} : { nodeId }) };
  const { value, ...rest } = await outcome(() => host.mesh.call<string>(burnMs === undefined ? "v1.probe.work" : "v1.probe.burn", { ms: burnMs ?? workMs }, options));
  journal.add({ kind: "call", node, attempts, ranOn: value, ...rest } satisfies Call);
}

async function emit(event: Emit["event"], send: (payload: Payload) => Promise<unknown>): Promise<void> {
  const seq = ++sent[event];
  const { startedAt, endedAt, error } = await outcome(() => send({ emitter: node, seq }));
  journal.add({ kind: "emit", event, node, seq, startedAt, endedAt, error });
}

async function ask(): Promise<void> {
  const { startedAt, endedAt, error } = await outcome(() => host.mesh.call("v1.probe.ask", {}, { strategy: "local-first", timeoutMs: QUERY_LIMIT_MS }));
  journal.add({ kind: "query", node, startedAt, endedAt, error });
}

function runLoad(load: Load): void {
  const { calls = 0, balanced = 0, broadcasts = 0, transactions = 0, queries = 0, kept: keptEvents = 0, jobMs = 0 } = load;
  generator.run([
    { perSecond: calls / 2, start: () => call(load, 0) },
    { perSecond: calls / 2, start: () => call(load, load.attempts ?? 2) },
    { perSecond: balanced, start: () => emit("balanced", (payload) => host.mesh.emit("fault.balanced", { ...payload, jobMs })) },
    { perSecond: broadcasts, start: () => emit("broadcast", (payload) => host.mesh.emit("fault.broadcast", payload)) },
    {
      perSecond: transactions,
      start: () =>
        emit("transaction", (payload) =>
          host.mesh.call("v1.probe.transact", { ...payload, fails: payload.seq % 3 === 0 }, { strategy: "local-first", timeoutMs: 10_000 }),
        ),
    },
    { perSecond: queries, start: ask },
    { perSecond: keptEvents, start: () => emit("kept", (payload) => kept!.publish(payload)) },
  ]);
}

async function saturate({ nodeId, concurrency, burnMs, lengthMs }: Saturation): Promise<number> {
  const startedAt = performance.now();
  let served = 0;
  const loop = async (): Promise<void> => {
    while (performance.now() - startedAt < lengthMs) {
      await host.mesh.call("v1.probe.burn", { ms: burnMs }, { nodeId }).then(() => served++, () => undefined);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, loop));
  return (served * 1000) / (performance.now() - startedAt);
}

const AT_ONCE = 50;
/** One event of so many goes to a group. */
const BALANCED_EVERY = 5;

async function exercise(rounds: number): Promise<void> {
  const peers = host.mesh.peers();
  for (let round = 0; round < rounds; round += AT_ONCE) {
    await Promise.all(
      Array.from({ length: AT_ONCE }, async (_, turn) => {
        await host.mesh.call("v1.probe.work", { ms: 0 }, { nodeId: peers[turn % peers.length]!.nodeId });
        if (turn % BALANCED_EVERY === 0) await host.mesh.emit("fault.exercise.balanced", { round }, { balanced: true });
        else await host.mesh.emit("fault.exercise", { round });
      }),
    );
  }
}

async function memory(): Promise<Memory> {
  global.gc!();
  await sleep(50);
  global.gc!();
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heapUsed };
}

serveCommands<NodeCommands>({
  start: async () => {
    await host.start({ signals: true });
    if (retentionMs !== undefined) kept = await KeptBus.open({ node, nodeId: host.nodeId, url: database, retentionMs, journal });
    return { nodeId: host.nodeId };
  },
  stop: () => host.stop(),
  load: async (load) => runLoad(load),
  quiet: async () => {
    await generator.quiet();
    journal.flush();
  },
  peers: async () => host.mesh.peers().map(({ nodeId }) => nodeId),
  reaches: (nodeId) => host.mesh.call("v1.probe.work", { ms: 0 }, { nodeId, timeoutMs: 500 }).then(() => true, () => false),
  hog: async (ms) => {
    const hold = (): Promise<unknown> => host.mesh.call("v1.probe.hold", { ms }, { strategy: "local-first", timeoutMs: ms + 10_000 });
    await Promise.allSettled(Array.from({ length: POOL_SIZE }, hold));
  },
  exercise,
  saturate,
  exercised: async () => faults.exercised,
  memory,
  leave: async () => {
    await host.stop();
    await kept?.close();
    journal.flush();
    stopWatching();
    process.removeAllListeners("disconnect");
    // After the reply to this command.
    setImmediate(() => process.disconnect());
  },
});
