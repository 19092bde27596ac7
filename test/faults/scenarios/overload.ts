import { callsOf, checkCalls, failed } from "../checks.js";
import { now } from "../history.js";
import type { Call } from "../history.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario, Trial } from "../trial.js";

const BURN_MS = 2;
const CONCURRENCY = 32;
const CALL_LIMIT_MS = 1_000;
const LEAST_GOODPUT = 0.8;
/** Of all calls, those that may find out only at their deadline. */
const MOST_TIMEOUTS = 0.05;
/** For half of the refusals: the caller knows before it sends. */
const AT_ONCE_MS = 20;
const MOST_GROWTH_BYTES = 50 * 1024 * 1024;

export const overload: Scenario = {
  name: "overload",
  promise: "twice the load that a node can serve: goodput stays within 20 % of its peak, the rest is refused at once, memory is flat, other nodes are undisturbed",
  async run(trial) {
    const { cluster } = trial;
    const [server, caller, bystander] = (await cluster.start(3)) as [FaultNode, FaultNode, FaultNode];
    const lengthMs = trial.size(2_000, 8_000);
    await caller.do("saturate", { nodeId: server.nodeId, concurrency: CONCURRENCY, burnMs: BURN_MS, lengthMs: 1_000 });
    const peak = await caller.do("saturate", { nodeId: server.nodeId, concurrency: CONCURRENCY, burnMs: BURN_MS, lengthMs: trial.size(1_500, 3_000) });
    await cluster.load({ calls: 50, nodeId: caller.nodeId, timeoutMs: CALL_LIMIT_MS }, [bystander]);
    const before = await memory([server, caller]);
    const from = trial.fault(`${Math.round(2 * peak)} calls/s to ${server.name}, which can serve ${Math.round(peak)}`);
    await cluster.load({ calls: 2 * peak, nodeId: server.nodeId, timeoutMs: CALL_LIMIT_MS, burnMs: BURN_MS, attempts: 0 }, [caller]);
    await trial.pause(lengthMs);
    const to = now();
    await cluster.quiet();
    trial.fault("the load ends");
    const after = await memory([server, caller]);

    const calls = callsOf(trial, [caller]).filter(({ startedAt }) => startedAt >= from && startedAt <= to);
    checkGoodput(trial, calls, peak, from, to);
    checkFailures(trial, calls);
    const grown = after.map((bytes, index) => bytes - before[index]!);
    trial.check(grown.every((bytes) => bytes < MOST_GROWTH_BYTES), `memory has grown by ${grown.map((bytes) => Math.round(bytes / 2 ** 20)).join(" and ")} MiB`);
    checkCalls(trial, callsOf(trial, [bystander]), []);
    trial.check(await caller.do("reaches", server.nodeId), "the node serves no call after the overload");
    await trial.settle();
  },
};

function memory(nodes: readonly FaultNode[]): Promise<number[]> {
  return Promise.all(nodes.map((node) => node.do("memory")));
}

function checkGoodput(trial: Trial, calls: readonly Call[], peak: number, from: number, to: number): void {
  const good = calls.filter((call) => !failed(call) && call.endedAt <= to).length / ((to - from) / 1000);
  trial.check(good >= LEAST_GOODPUT * peak, `goodput is ${Math.round(good)} calls/s, its peak was ${Math.round(peak)}`);
}

function checkFailures(trial: Trial, calls: readonly Call[]): void {
  const failures = calls.filter(failed);
  const timeouts = failures.filter(({ error }) => error!.startsWith("TIMEOUT"));
  trial.check(failures.length > 0, "no call was refused: there was no overload");
  trial.check(timeouts.length <= MOST_TIMEOUTS * calls.length, `${timeouts.length} of ${calls.length} calls found out only at their deadline`);
  const refusedAfter = failures.filter(({ error }) => error!.startsWith("OVERLOADED")).map(({ startedAt, endedAt }) => endedAt - startedAt).sort((a, b) => a - b);
  const median = refusedAfter[refusedAfter.length >> 1] ?? 0;
  trial.check(median <= AT_ONCE_MS, `half of the refusals took ${Math.round(median)} ms and more`);
  trial.none(failures.filter(({ error }) => !/^(?:TIMEOUT|OVERLOADED)/.test(error!)), "calls that failed of something else");
}
