import { AsyncResource } from "node:async_hooks";
import type { Logger } from "../logger.js";
import type { Dispatcher } from "../contract/registration.js";
import type { Storage } from "../contract/storage.js";
import { now } from "../pipeline/deadline.js";
import { within } from "../pipeline/time-limit.js";
import { Claimer } from "./claimer.js";
import { createConsumer, groupPatterns, type Consumer, type JobRegistration } from "./consumers.js";
import { GroupPatterns } from "./group-patterns.js";
import { JobRunner } from "./job-runner.js";
import { JobSlots } from "./job-slots.js";
import { LaneSet } from "./lane-set.js";
import { Leases } from "./leases.js";
import { QueueUpkeep } from "./queue-upkeep.js";
import { JobQueue } from "./queue.js";
import { Settlements } from "./settlements.js";
import { Strays } from "./strays.js";
import { Upkeep } from "./upkeep.js";

export interface WorkerDefaults {
  /**
   * Jobs handled at the same time on this node, of all queues and events without a `concurrency` of their own. Each of
   * them may always run one, even over this limit. Default 10.
   */
  readonly concurrency: number;
  /** A job whose node has died runs on another after this time at the latest. Default 30000. */
  readonly leaseMs: number;
  /** Default 5. */
  readonly maxAttempts: number;
  /** Default 1000. */
  readonly retryDelayMs: number;
  /**
   * Longest time between looks at the tables where no wake-up came; up to four times that while LISTEN works and nothing is
   * under way. Default 1000.
   */
  readonly pollIntervalMs: number;
}

export interface WorkerEngineOptions {
  readonly storage: Storage;
  readonly dispatcher: Dispatcher;
  readonly nodeId: string;
  readonly log: Logger;
  readonly defaults: WorkerDefaults;
  /** Other nodes may take jobs of these lanes, which this one has given back. Without it they find them by polling. */
  readonly onReleased?: (lanes: readonly string[]) => void;
  /** Other nodes' wake-ups arrive. Default: they never do. */
  readonly live?: () => boolean;
}

export interface WorkerEngine {
  /** Remembers groups in the database, then serves them. Returns the detachment, which waits for jobs under way. */
  attach(registrations: readonly JobRegistration[]): Promise<() => Promise<void>>;
  /** Begins to claim. Resolves when the database knows that this node serves its groups, or that could not be written yet. */
  start(): Promise<void>;
  /** Jobs may be waiting in these lanes. */
  wake(lanes: readonly string[]): void;
  /** As `wake`, where other nodes are told the same. */
  hear(lanes: readonly string[]): void;
  /** A job of this lane falls due in `delayMs`. */
  expect(lane: string, delayMs: number): void;
  /** Claims no more, and gives prefetched jobs back. */
  drain(): Promise<void>;
  /** Names of the jobs under way: `queue#id`. */
  inFlight(): readonly string[];
  /** After `drain`: gives up the leases of what still runs, and closes timers. */
  stop(): Promise<void>;
}

/** A job claimed in advance that has not started after this long goes back. */
const STALE_AFTER_MS = 1_000;
/** A node that has nothing to do, and would be told of it, looks so much more rarely, but not for its sake less often than that. */
const IDLE = { factor: 4, longestMs: 10_000 };
const SETTLE_LIMIT_MS = 5_000;
const FORGET_LIMIT_MS = 1_000;

export function createWorkerEngine(options: WorkerEngineOptions): WorkerEngine {
  return new Engine(options);
}

class Engine implements WorkerEngine {
  readonly #context = new AsyncResource("chimpbase.mesh.worker");
  readonly #defaults: WorkerDefaults;
  readonly #queue: JobQueue;
  readonly #idleLookMs: number;
  readonly #patterns: GroupPatterns;
  readonly #lanes: LaneSet;
  readonly #leases: Leases;
  readonly #settlements: Settlements;
  readonly #runner: JobRunner;
  readonly #slots: JobSlots;
  readonly #claimer: Claimer;
  readonly #strays: Strays;
  readonly #upkeep: Upkeep;
  #started = false;
  #draining: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor({ storage, dispatcher, nodeId, log, defaults, onReleased = () => undefined, live = () => false }: WorkerEngineOptions) {
    const { concurrency, pollIntervalMs } = defaults;
    const longestMs = defaults.leaseMs / 8;
    const lookMs = Math.min(pollIntervalMs, longestMs);
    const idleLookMs = (this.#idleLookMs = Math.min(IDLE.factor * pollIntervalMs, Math.max(pollIntervalMs, IDLE.longestMs), longestMs));
    // Shorter than promised by the time that others may take to notice its end: takeover happens within `leaseMs`.
    const leaseMs = defaults.leaseMs - 2 * idleLookMs;
    const queue = (this.#queue = new JobQueue(storage, nodeId, leaseMs));
    this.#defaults = defaults;
    this.#patterns = new GroupPatterns(storage);
    const lanes = (this.#lanes = new LaneSet(concurrency));
    const leases = (this.#leases = new Leases(queue, leaseMs, log));
    const onDeferred = (delayMs: number): void => this.#upkeep.lookWithin(delayMs);
    const settlements = (this.#settlements = new Settlements({ queue, leases, log, onDeferred, onReleased }));
    const runner = (this.#runner = new JobRunner({ storage, queue, dispatcher, nodeId, log, leases, settlements }));
    const onRoom = (): void => this.#claimer.poke();
    const slots = (this.#slots = new JobSlots({ lanes, runner, settlements, limit: concurrency, onRoom }));
    this.#claimer = new Claimer({ queue, lanes, slots, leases, settlements, leaseMs, log });
    this.#strays = new Strays({ patterns: this.#patterns, lanes, leaseMs: defaults.leaseMs, log, onAdopted: (keys) => this.#onAdopted(keys) });
    this.#upkeep = new Upkeep({
      queue: new QueueUpkeep(storage),
      lanes,
      strays: this.#strays,
      intervalMs: lookMs,
      idleIntervalMs: idleLookMs,
      idle: () => live() && slots.running.size === 0,
      log,
      onReady: (keys) => this.#claimer.wake(keys),
      onLook: () => slots.releaseStale(now() - STALE_AFTER_MS),
      takeEnded: () => leases.takeEnded(),
    });
  }

  async attach(registrations: readonly JobRegistration[]): Promise<() => Promise<void>> {
    const consumers = registrations.map((registration) => createConsumer(registration, this.#defaults));
    const groups = groupPatterns(consumers);
    if (groups.length > 0) await this.#patterns.remember(groups);
    this.#lanes.add(consumers);
    // Jobs may have been waiting since before.
    this.wake(consumers.map((consumer) => consumer.lane));
    if (groups.length > 0 && this.#started) await this.#strays.begin();
    return () => this.#detach(consumers);
  }

  async start(): Promise<void> {
    if (this.#started) return;
    this.#started = true;
    this.#claimer.start();
    this.#upkeep.lookWithin(0);
    await this.#strays.begin();
  }

  wake(lanes: readonly string[]): void {
    // Not in the asynchronous context of whoever woke: the jobs that follow have nothing to do with it.
    this.#context.runInAsyncScope(() => this.#claimer.wake(lanes));
  }

  hear(lanes: readonly string[]): void {
    this.#context.runInAsyncScope(() => this.#claimer.hear(lanes));
  }

  expect(lane: string, delayMs: number): void {
    // Longer delays are seen in time by the looks that come anyway.
    if (!this.#started || delayMs >= this.#idleLookMs || this.#lanes.get(lane) === undefined) return;
    this.#context.runInAsyncScope(() => this.#upkeep.lookWithin(delayMs));
  }

  drain(): Promise<void> {
    return (this.#draining ??= this.#drain());
  }

  inFlight(): readonly string[] {
    return [...this.#slots.running].map((job) => job.name);
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  /** A claimer is told of those that are ready; a look finds those whose lease has run out. */
  #onAdopted(lanes: readonly string[]): void {
    this.#claimer.wake(lanes);
    this.#upkeep.lookWithin(0);
  }

  async #detach(consumers: readonly Consumer[]): Promise<void> {
    this.#slots.release(this.#lanes.remove(consumers));
    await this.#slots.idle(consumers);
  }

  async #drain(): Promise<void> {
    this.#runner.drain();
    const closed = Promise.all([this.#claimer.close(), this.#upkeep.close()]);
    this.#slots.releaseBuffered();
    await within(Promise.allSettled([closed.then(() => this.#settlements.idle())]), SETTLE_LIMIT_MS);
  }

  async #stop(): Promise<void> {
    await this.drain();
    await this.#slots.abandon(SETTLE_LIMIT_MS);
    this.#runner.close();
    await this.#settlements.close(SETTLE_LIMIT_MS);
    this.#leases.close();
    await this.#forgetEnded();
  }

  /** Where it fails, other nodes delete the rows when their leases end. */
  async #forgetEnded(): Promise<void> {
    if (this.#leases.used) await within(Promise.allSettled([this.#queue.forget()]), FORGET_LIMIT_MS);
  }
}
