import { MeshCancelledError, MeshConfigurationError, MeshTimeoutError } from "../errors.js";
import { refuseUnknownKeys } from "./option-names.js";
import type { WaitForOptions } from "../contract/mesh-client.js";
import type { DeadlineView, CancellationView } from "../contract/registration.js";

const DEFAULT_TIMEOUT_MS = 30_000;
const FULL_NAME = /^v\d+\.[^.\s]/;

/** What can be called from here, and when that changes. */
export interface Reachability {
  serves(name: string): boolean;
  onChange(listener: () => void): () => void;
  /** Aborts when the mesh stops: then nothing will come any more. */
  readonly closing: CancellationView;
}

/** The run that waits: it never waits longer than it may run itself. */
export interface Waiter {
  readonly deadline: DeadlineView | null;
  readonly cancellation: CancellationView;
}

/** Resolves when every name can be called; looks again only when something has changed. */
export async function waitFor(names: readonly string[], reach: Reachability, options: WaitForOptions, waiter: Waiter): Promise<void> {
  refuseUnknownKeys("option of waitFor", options, ["timeoutMs", "signal"]);
  for (const name of names) checkName(name);
  const missing = (): string[] => names.filter((name) => !reach.serves(name));
  if (missing().length === 0) return;
  const timeoutMs = timeoutOf(options, waiter);
  const { promise, resolve, reject } = withResolvers();
  const cancel = (reason: unknown): void => reject(new MeshCancelledError(`waiting for ${missing().join(", ")} was cancelled`, { cause: reason }));
  const onAbort = (): void => cancel(options.signal?.reason);
  const timer = setTimeout(() => reject(timeout(missing(), timeoutMs)), timeoutMs);
  const stopListening = reach.onChange(() => missing().length === 0 && resolve());
  const stopFollowing = [waiter.cancellation.onAbort(cancel), reach.closing.onAbort(cancel)];
  options.signal?.addEventListener("abort", onAbort, { once: true });
  if (options.signal?.aborted === true) onAbort();
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    stopListening();
    for (const stop of stopFollowing) stop();
    options.signal?.removeEventListener("abort", onAbort);
  }
}

function timeoutOf({ timeoutMs = DEFAULT_TIMEOUT_MS }: WaitForOptions, { deadline }: Waiter): number {
  if (!Number.isFinite(timeoutMs) || timeoutMs < 0) {
    throw new MeshConfigurationError(`waitFor option timeoutMs cannot be ${String(timeoutMs)}: give a number of ms, 0 or more`);
  }
  return Math.min(timeoutMs, deadline?.remainingMs() ?? Infinity, 2 ** 31 - 1);
}

function timeout(missing: readonly string[], ms: number): MeshTimeoutError {
  return new MeshTimeoutError(`waiting for ${missing.join(", ")}`, Math.round(ms), { data: { missing } });
}

function checkName(name: unknown): void {
  if (typeof name === "string" && FULL_NAME.test(name)) return;
  throw new MeshConfigurationError(`waitFor cannot wait for ${JSON.stringify(name)}: name a service like "v1.users" or an action like "v1.users.create"`);
}

function withResolvers(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<void>((fulfil, fail) => ([resolve, reject] = [fulfil, fail]));
  return { promise, resolve, reject };
}
