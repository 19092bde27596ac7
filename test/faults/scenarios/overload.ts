import { callsOf, checkCalls } from "../checks.js";
import { checkGoodput, checkMemory, checkRefusals } from "../checks/overload.js";
import { now } from "../history.js";
import type { FaultNode } from "../cluster.js";
import type { Scenario } from "../trial.js";

const BURN_MS = 2;
const CONCURRENCY = 32;
const CALL_LIMIT_MS = 1_000;

export const overload: Scenario = {
  name: "overload",
  promise: "twice the load that a node can serve: goodput stays within 20 % of its peak, the rest is refused at once, memory is flat, other nodes are undisturbed",
  async run(trial) {
    const { cluster } = trial;
    const [server, caller, bystander] = (await cluster.start(3)) as [FaultNode, FaultNode, FaultNode];
    const lengthMs = trial.size(2_000, 8_000);
    await caller.do("saturate", { nodeId: server.nodeId, concurrency: CONCURRENCY, burnMs: BURN_MS, lengthMs: trial.size(500, 1_000) });
    const peak = await caller.do("saturate", { nodeId: server.nodeId, concurrency: CONCURRENCY, burnMs: BURN_MS, lengthMs: trial.size(1_000, 3_000) });
    await cluster.load({ calls: 50, nodeId: caller.nodeId, timeoutMs: CALL_LIMIT_MS }, [bystander]);
    const before = await rss([server, caller]);
    const from = trial.fault(`${Math.round(2 * peak)} calls/s to ${server.name}, which can serve ${Math.round(peak)}`);
    await cluster.load({ calls: 2 * peak, nodeId: server.nodeId, timeoutMs: CALL_LIMIT_MS, burnMs: BURN_MS, attempts: 0 }, [caller]);
    await trial.pause(lengthMs / 2);
    const halfway = await rss([server, caller]);
    await trial.pause(from + lengthMs - now());
    const to = now();
    const atEnd = await rss([server, caller]);
    await cluster.quiet();
    trial.fault("the load ends");
    const after = await rss([server, caller]);

    const calls = callsOf(trial, [caller]).filter(({ startedAt }) => startedAt >= from && startedAt <= to);
    checkGoodput(trial, calls, peak, from, to);
    checkRefusals(trial, calls, CALL_LIMIT_MS);
    checkMemory(trial, { before, halfway, atEnd, after });
    checkCalls(trial, callsOf(trial, [bystander]), []);
    trial.check(await caller.do("reaches", server.nodeId), "the node serves no call after the overload");
    await trial.settle();
  },
};

async function rss(nodes: readonly FaultNode[]): Promise<number[]> {
  return (await Promise.all(nodes.map((node) => node.do("memory")))).map((memory) => memory.rss);
}
