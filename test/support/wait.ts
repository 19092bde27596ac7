import { setTimeout as sleep } from "node:timers/promises";

export interface UntilOptions {
  /** Default 10000. */
  readonly timeoutMs?: number;
  /** What was waited for, for the error. */
  readonly message?: string;
}

const POLL_MS = 5;

/** Polls `condition` until it gives a truthy value, and resolves with that. What it throws ends the wait. */
export async function until<T>(condition: () => T | Promise<T>, options: UntilOptions = {}): Promise<NonNullable<T>> {
  const { timeoutMs = 10_000, message = condition.toString() } = options;
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value) return value as NonNullable<T>;
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${message}`);
    await sleep(POLL_MS);
  }
}
