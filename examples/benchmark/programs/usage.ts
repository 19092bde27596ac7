export interface Usage {
  readonly cpuMs: number;
  readonly heapBytes: number;
}

/** Of this process since its start, and after a collection. */
export async function usage(): Promise<Usage> {
  globalThis.gc?.();
  const { user, system } = process.cpuUsage();
  return { cpuMs: (user + system) / 1_000, heapBytes: process.memoryUsage().heapUsed };
}
