import { MeshConfigurationError } from "../errors.js";
import type { RetryOptions } from "../contract/descriptor.js";
import type { CancellationView } from "../contract/registration.js";
import type { TimerWheel } from "./timer-wheel.js";

export type RetryPolicy = Required<RetryOptions>;

const LONGEST_PAUSE_MS = 60_000;

export const NO_RETRY: RetryPolicy = Object.freeze({ attempts: 0, delayMs: 50, factor: 2, jitter: 0.5 });

/** `options` over `defaults`, checked. `subject` starts the message of the error. */
export function resolveRetry(options: RetryOptions | undefined, defaults: RetryPolicy, subject: string): RetryPolicy {
  if (options === undefined) return defaults;
  const policy: RetryPolicy = {
    attempts: options.attempts ?? defaults.attempts,
    delayMs: options.delayMs ?? defaults.delayMs,
    factor: options.factor ?? defaults.factor,
    jitter: options.jitter ?? defaults.jitter,
  };
  check(Number.isInteger(policy.attempts) && policy.attempts >= 0, subject, "attempts", "a whole number of tries after the first, 0 or more", policy.attempts);
  check(Number.isFinite(policy.delayMs) && policy.delayMs >= 0, subject, "delayMs", "a number of ms, 0 or more", policy.delayMs);
  check(Number.isFinite(policy.factor) && policy.factor >= 1, subject, "factor", "a number, 1 or more", policy.factor);
  check(policy.jitter >= 0 && policy.jitter <= 1, subject, "jitter", "a number from 0 to 1", policy.jitter);
  return policy;
}

function check(holds: boolean, subject: string, option: string, expected: string, value: unknown): void {
  if (!holds) throw new MeshConfigurationError(`${subject} retry.${option} must be ${expected}, got ${String(value)}`);
}

/** Pause in ms before the `retry`-th retry (1 is the first): exponential, of which the share `jitter` is random; at most a minute. */
export function retryDelay(policy: RetryPolicy, retry: number, random: () => number = Math.random): number {
  const full = Math.min(LONGEST_PAUSE_MS, policy.delayMs * policy.factor ** (retry - 1));
  return full * (1 - policy.jitter * random());
}

/** Resolves after `delayMs`, or as soon as `cancellation` aborts: the caller looks at it afterwards. */
export function pause(wheel: TimerWheel, delayMs: number, cancellation: CancellationView): Promise<void> {
  return new Promise((resolve) => {
    const entry = wheel.add(delayMs, () => {
      unlink();
      resolve();
    });
    const unlink = cancellation.onAbort(() => {
      entry.cancel();
      resolve();
    });
  });
}
