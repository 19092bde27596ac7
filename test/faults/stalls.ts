import { now, type Entry } from "./history.js";

const TICK_MS = 10;
const LEAST_MS = 30;

/**
 * Reports when this process did not get to run: on a busy machine no promise about time holds, and the checkers take
 * that into account. Returns the end of watching.
 */
export function watchStalls(node: string, report: (entry: Entry) => void): () => void {
  let last = now();
  const timer = setInterval(() => {
    const at = now();
    if (at - last >= TICK_MS + LEAST_MS) report({ kind: "stall", node, from: last, to: at });
    last = at;
  }, TICK_MS);
  return () => clearInterval(timer);
}
