import { now, type Entry } from "./history.js";

const TICK_MS = 10;
const LEAST_MS = 30;

/**
 * Reports when this process did not get to run: on a busy machine no promise about time holds, and the checkers take
 * that into account. Time in which it ran itself is no stall, however long it kept its event loop. Returns the end of
 * watching.
 */
export function watchStalls(node: string, report: (entry: Entry) => void): () => void {
  let last = now();
  let lastUsed = process.cpuUsage();
  const timer = setInterval(() => {
    const at = now();
    if (at - last >= TICK_MS + LEAST_MS) {
      const { user, system } = process.cpuUsage(lastUsed);
      const stalledMs = at - last - TICK_MS - (user + system) / 1_000;
      if (stalledMs >= LEAST_MS) report({ kind: "stall", node, from: at - stalledMs, to: at });
    }
    last = at;
    lastUsed = process.cpuUsage();
  }, TICK_MS);
  return () => clearInterval(timer);
}
