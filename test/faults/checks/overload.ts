import { failed } from "../checks.js";
import type { Findings } from "../findings.js";
import type { Call } from "../history.js";

const LEAST_GOODPUT = 0.8;
/** Of all calls, those that may find out only at their deadline. */
const MOST_TIMEOUTS = 0.05;
/** For half of the refusals: the caller knows before it sends. */
const AT_ONCE_MS = 20;
/** For 99 of 100, as a share of the call's time: half of it may go by on the caller, then half of the rest on the server. */
const MOST_WAITED = 0.75;
const SLACK_MS = 100;
const MOST_GROWTH_BYTES = 50 * 1024 * 1024;
const MOST_LATE_GROWTH_BYTES = 15 * 1024 * 1024;

/** Of `calls`, what came back by `to` comes near the peak, in calls a second. */
export function checkGoodput(findings: Findings, calls: readonly Call[], peak: number, from: number, to: number): void {
  const good = calls.filter((call) => !failed(call) && call.endedAt <= to).length / ((to - from) / 1000);
  findings.check(good >= LEAST_GOODPUT * peak, `goodput is ${Math.round(good)} calls/s, its peak was ${Math.round(peak)}`);
}

/** What is not served is refused, nearly all of it, and at once. `limitMs`: of each call. */
export function checkRefusals(findings: Findings, calls: readonly Call[], limitMs: number): void {
  const failures = calls.filter(failed);
  const failedOf = (code: string): Call[] => failures.filter(({ error }) => error!.startsWith(code));
  const [timeouts, refused] = [failedOf("TIMEOUT"), failedOf("OVERLOADED")];
  findings.check(refused.length > 0, "no call was refused: there was no overload");
  findings.check(timeouts.length <= MOST_TIMEOUTS * calls.length, `${timeouts.length} of ${calls.length} calls found out only at their deadline`);
  const refusedAfter = refused.map(({ startedAt, endedAt }) => endedAt - startedAt).sort((a, b) => a - b);
  const ofHundred = (n: number): number => refusedAfter[Math.floor((refusedAfter.length * n) / 100)] ?? 0;
  const [median, most] = [ofHundred(50), ofHundred(99)];
  findings.check(median <= AT_ONCE_MS, `half of the refusals took ${Math.round(median)} ms and more`);
  findings.check(most <= MOST_WAITED * limitMs + SLACK_MS, `one refusal in a hundred took ${Math.round(most)} ms and more`);
  findings.none(refused.filter(({ retryable }) => retryable !== true), "refusals that are not to be retried");
  findings.none(failures.filter(({ error }) => !/^(?:TIMEOUT|OVERLOADED)/.test(error!)), "calls that failed of something else");
}

/** Bytes that each process holds. */
export interface Holdings {
  readonly before: readonly number[];
  /** Under load. */
  readonly halfway: readonly number[];
  readonly atEnd: readonly number[];
  readonly after: readonly number[];
}

/** Load takes some memory, and no more of it as it lasts. */
export function checkMemory(findings: Findings, { before, halfway, atEnd, after }: Holdings): void {
  checkGrowth(findings, "memory", differences(before, after), MOST_GROWTH_BYTES);
  checkGrowth(findings, "memory in the second half", differences(halfway, atEnd), MOST_LATE_GROWTH_BYTES);
}

export function checkGrowth(findings: Findings, what: string, grown: readonly number[], mostBytes: number): void {
  findings.check(grown.every((bytes) => bytes < mostBytes), `${what} has grown by ${grown.map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(" and ")} MiB`);
}

function differences(before: readonly number[], after: readonly number[]): number[] {
  return after.map((bytes, index) => bytes - before[index]!);
}
