import { setTimeout as sleep } from "node:timers/promises";

export interface Latencies {
  /** In ms. */
  readonly p50: number;
  readonly p99: number;
}

export interface Rate extends Latencies {
  /** Operations per second. */
  readonly rate: number;
}

/** The clock that all processes of a machine share, in ms. */
export const clock = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Keeps `concurrency` operations under way for `ms`. */
export async function measureRate(operation: () => Promise<unknown>, concurrency: number, ms: number): Promise<Rate> {
  const started = performance.now();
  const end = started + ms;
  const latencies: number[] = [];
  const worker = async (): Promise<void> => {
    for (let before = performance.now(); before < end; ) {
      await operation();
      const after = performance.now();
      latencies.push(after - before);
      before = after;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  const seconds = (performance.now() - started) / 1_000;
  return { rate: latencies.length / seconds, ...summary(latencies) };
}

/**
 * Starts `perSecond` operations a second for `ms`, whatever the ones before them do, and waits for all. What a busy machine made late is
 * started late, but nothing is left out, and each is told when it was due on the common clock.
 */
export async function pace(operation: (i: number, dueAt: number) => Promise<unknown>, perSecond: number, ms: number): Promise<number> {
  const started = clock();
  const total = Math.round((perSecond * ms) / 1_000);
  const underWay = new Set<Promise<unknown>>();
  let failure: { readonly error: unknown } | undefined;
  for (let i = 0; i < total && failure === undefined; ) {
    const due = Math.min(total, Math.ceil(((clock() - started) * perSecond) / 1_000));
    for (; i < due; i++) {
      const running = operation(i, started + (i * 1_000) / perSecond).catch((error: unknown) => (failure ??= { error })).finally(() => underWay.delete(running));
      underWay.add(running);
    }
    await sleep(1);
  }
  await Promise.all(underWay);
  if (failure !== undefined) throw failure.error;
  return total;
}

/** Runs `operation` for each number from `from` to `to`, `concurrency` at a time. */
export async function each(from: number, to: number, concurrency: number, operation: (i: number) => Promise<unknown>): Promise<void> {
  let next = from;
  const worker = async (): Promise<void> => {
    while (next <= to) await operation(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

export function summary(values: readonly number[]): Latencies {
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99) };
}

function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** The mean of the two in the middle where their number is even. */
export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
