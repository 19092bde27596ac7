import type { BalancedRegistration, Target, WorkerOptions, WorkerRegistration } from "../contract/registration.js";
import { MeshConfigurationError } from "../errors.js";
import { groupLane, queueLane } from "../storage/lanes.js";
import { compilePattern, patternToRegex } from "./event-pattern.js";
import type { GroupPattern } from "./group-patterns.js";

/** Jobs of one queue that a part of the host makes for itself. */
export interface InternalRegistration {
  readonly kind: "internal";
  readonly queue: string;
  readonly target: Target;
  readonly options: WorkerOptions;
}

export type JobRegistration = WorkerRegistration | BalancedRegistration | InternalRegistration;

export interface ConsumerDefaults {
  readonly maxAttempts: number;
  readonly retryDelayMs: number;
}

/** One handler of jobs on this node. */
export interface Consumer {
  readonly lane: string;
  readonly group: string | null;
  /** Of the events that the group takes by it. */
  readonly pattern: string | null;
  readonly target: Target;
  readonly matches: (event: string) => boolean;
  /** Its own limit of jobs at the same time; null: it shares the node's. */
  readonly limit: number | null;
  readonly maxAttempts: number;
  readonly retryDelayMs: number;
  readonly transaction: boolean;
  /** False: a job out of attempts is dropped; the next one stands for it. */
  readonly buries: boolean;
  running: number;
}

export function createConsumer(registration: JobRegistration, defaults: ConsumerDefaults): Consumer {
  const { options } = registration;
  checkOptions(registration);
  return {
    ...addressOf(registration),
    target: targetOf(registration),
    limit: options.concurrency ?? null,
    maxAttempts: options.maxAttempts ?? defaults.maxAttempts,
    retryDelayMs: options.retryDelayMs ?? defaults.retryDelayMs,
    transaction: options.transaction ?? true,
    buries: registration.kind !== "internal",
    running: 0,
  };
}

/**
 * What one job runs: each consumer of its lane, and of its group each other one whose pattern matches the event. In
 * order of registration, each once.
 */
export function consumersOf(all: Iterable<Consumer>, lane: string, group: string | null, event: string | null): Consumer[] {
  const takes = (consumer: Consumer): boolean =>
    consumer.lane === lane || (group !== null && consumer.group === group && event !== null && consumer.matches(event));
  return [...all].filter(takes);
}

/** Several handlers in one job: the most patient number of attempts, the shortest delay. */
export function retryRules(consumers: readonly Consumer[]): ConsumerDefaults {
  return {
    maxAttempts: Math.max(...consumers.map((consumer) => consumer.maxAttempts)),
    retryDelayMs: Math.min(...consumers.map((consumer) => consumer.retryDelayMs)),
  };
}

/** What the groups of these consumers take, each once. */
export function groupPatterns(consumers: Iterable<Consumer>): GroupPattern[] {
  const found = new Map<string, GroupPattern>();
  for (const { lane, group, pattern } of consumers) {
    if (group !== null && pattern !== null) found.set(lane, { group, pattern, regex: patternToRegex(pattern) });
  }
  return [...found.values()];
}

function addressOf(registration: JobRegistration): Pick<Consumer, "lane" | "group" | "pattern" | "matches"> {
  if (registration.kind !== "balanced") return { lane: queueLane(registration.queue), group: null, pattern: null, matches: () => false };
  const { group, pattern } = registration;
  return { lane: groupLane(group, pattern), group, pattern, matches: compilePattern(pattern) };
}

function targetOf(registration: JobRegistration): Target {
  if (registration.kind !== "worker") return registration.target;
  const { queue, handler } = registration;
  return { kind: "job", name: queue, handler: (ctx, payload) => handler(ctx, payload as never) };
}

function checkOptions(registration: JobRegistration): void {
  const subject = registration.kind === "balanced" ? `event "${registration.pattern}"` : `queue "${registration.queue}"`;
  const { concurrency, maxAttempts, retryDelayMs } = registration.options;
  checkInteger(subject, "concurrency", concurrency, 1);
  checkInteger(subject, "maxAttempts", maxAttempts, 1);
  checkInteger(subject, "retryDelayMs", retryDelayMs, 0);
}

function checkInteger(subject: string, option: string, value: number | undefined, least: number): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least)) return;
  throw new MeshConfigurationError(`${subject}: option ${option} must be an integer of at least ${least}, not ${String(value)}`);
}
