export interface Rate {
  /** Operations per second. */
  readonly rate: number;
  /** Latencies in ms. */
  readonly p50: number;
  readonly p99: number;
}

/** Keeps `concurrency` operations under way for `ms` after a warm-up of a third of that. */
export async function measureRate(operation: () => Promise<unknown>, concurrency: number, ms: number): Promise<Rate> {
  await run(operation, concurrency, ms / 3);
  const started = performance.now();
  const latencies = await run(operation, concurrency, ms);
  const seconds = (performance.now() - started) / 1_000;
  return { rate: latencies.length / seconds, ...percentiles(latencies) };
}

async function run(operation: () => Promise<unknown>, concurrency: number, ms: number): Promise<number[]> {
  const end = performance.now() + ms;
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
  return latencies;
}

export function percentiles(values: number[]): { p50: number; p99: number } {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

export const median = (values: readonly number[]): number => percentiles([...values]).p50;
