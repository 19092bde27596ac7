import { failed } from "../checks.js";
import type { Findings } from "../findings.js";
import type { Call } from "../history.js";

const LEAST_GOODPUT = 0.8;
/** Of all calls, those that may find out only at their deadline. */
const MOST_TIMEOUTS = 0.05;
/** For half of the refusals: the caller knows before it sends. */
const AT_ONCE_MS = 20;
const MOST_GROWTH_BYTES = 50 * 1024 * 1024;

/** Of `calls`, what came back by `to` comes near the peak, in calls a second. */
export function checkGoodput(findings: Findings, calls: readonly Call[], peak: number, from: number, to: number): void {
  const good = calls.filter((call) => !failed(call) && call.endedAt <= to).length / ((to - from) / 1000);
  findings.check(good >= LEAST_GOODPUT * peak, `goodput is ${Math.round(good)} calls/s, its peak was ${Math.round(peak)}`);
}

/** What is not served is refused, nearly all of it, and at once. */
export function checkRefusals(findings: Findings, calls: readonly Call[]): void {
  const failures = calls.filter(failed);
  const failedOf = (code: string): Call[] => failures.filter(({ error }) => error!.startsWith(code));
  const [timeouts, refused] = [failedOf("TIMEOUT"), failedOf("OVERLOADED")];
  findings.check(refused.length > 0, "no call was refused: there was no overload");
  findings.check(timeouts.length <= MOST_TIMEOUTS * calls.length, `${timeouts.length} of ${calls.length} calls found out only at their deadline`);
  const refusedAfter = refused.map(({ startedAt, endedAt }) => endedAt - startedAt).sort((a, b) => a - b);
  const median = refusedAfter[refusedAfter.length >> 1] ?? 0;
  findings.check(median <= AT_ONCE_MS, `half of the refusals took ${Math.round(median)} ms and more`);
  findings.none(failures.filter(({ error }) => !/^(?:TIMEOUT|OVERLOADED)/.test(error!)), "calls that failed of something else");
}

/** Bytes that each process holds, before and after. */
export function checkMemory(findings: Findings, before: readonly number[], after: readonly number[]): void {
  const grown = after.map((bytes, index) => bytes - before[index]!);
  findings.check(grown.every((bytes) => bytes < MOST_GROWTH_BYTES), `memory has grown by ${grown.map((bytes) => Math.round(bytes / 2 ** 20)).join(" and ")} MiB`);
}
