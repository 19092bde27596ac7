import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Cron } from "croner";
import { MeshConfigurationError, toError } from "../errors.js";
import type { Logger } from "../logger.js";
import type { CronRegistration, CronTick } from "../contract/registration.js";
import type { Storage } from "../contract/storage.js";
import { now } from "../pipeline/deadline.js";
import { queueLane } from "../storage/lanes.js";
import { answered } from "./answer-limit.js";
import { backOffMs } from "../back-off.js";
import type { InternalRegistration } from "./consumers.js";
import { CronTable, type FireResult } from "./cron-table.js";
import { DatabaseClock } from "./database-clock.js";
import { encodeJobHeaders } from "./job-headers.js";
import type { WorkerEngine } from "./worker.js";

export interface SchedulerOptions {
  readonly storage: Storage;
  /** Runs the ticks, each as a job: taken over where its node dies, retried where the handler fails. */
  readonly worker: WorkerEngine;
  readonly nodeId: string;
  readonly log: Logger;
}

export interface Scheduler {
  /** Before `start`. Throws `MeshConfigurationError` for a schedule or time zone that croner refuses. */
  add(registration: CronRegistration): void;
  start(): Promise<void>;
  /** Fires no more. Ticks that have fired are jobs of the worker engine. */
  stop(): Promise<void>;
}

interface Entry {
  readonly registration: CronRegistration;
  readonly timezone: string;
  readonly cron: Cron;
  readonly queue: string;
  lastTickMs: number;
  /** When to look next, database clock; infinite where no tick comes any more. */
  nextMs: number;
  failures: number;
}

const ANSWER_LIMIT_MS = 10_000;
const CRON_QUEUE = "__chimpbase.mesh.cron.";
/** Beyond it, missed ticks are not counted one by one. */
const MAX_COUNTED = 1_000;
/** Longest sleep: the clocks drift apart, and a timer takes 24 days at most. */
const LONGEST_SLEEP_MS = 600_000;

export function createScheduler(options: SchedulerOptions): Scheduler {
  return new CronScheduler(options);
}

/**
 * Every node that has a cron knows when it is due, by the database's clock, and tries to take the tick; one succeeds.
 * Taking it writes a job in the same statement.
 */
class CronScheduler implements Scheduler {
  readonly #options: SchedulerOptions;
  readonly #table: CronTable;
  readonly #clock = new DatabaseClock();
  readonly #entries: Entry[] = [];
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#table = new CronTable(options.storage);
  }

  add(registration: CronRegistration): void {
    const timezone = registration.options.timezone ?? "UTC";
    const cron = parseSchedule(registration, timezone);
    const queue = CRON_QUEUE + registration.name;
    this.#entries.push({ registration, timezone, cron, queue, lastTickMs: 0, nextMs: Infinity, failures: 0 });
  }

  async start(): Promise<void> {
    if (this.#entries.length === 0) return;
    for (const entry of this.#entries) await this.#register(entry);
    await this.#options.worker.attach(this.#entries.map(handlerOf));
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #register(entry: Entry): Promise<void> {
    const sentAt = now();
    const state = await this.#table.register(entry.registration.name, entry.registration.schedule, entry.timezone);
    this.#clock.set(state.nowMs, sentAt);
    entry.lastTickMs = state.lastTickMs;
    entry.nextMs = nextTick(entry.cron, state.lastTickMs);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await sleep(this.#sleepMs(), undefined, { signal }).catch(() => undefined);
      for (const entry of this.#entries) if (!signal.aborted && entry.nextMs <= this.#clock.now()) await this.#tryFire(entry);
      if (!signal.aborted && this.#clock.age > LONGEST_SLEEP_MS) await this.#readClock();
    }
  }

  #sleepMs(): number {
    const next = Math.min(...this.#entries.map((entry) => entry.nextMs));
    return Math.min(LONGEST_SLEEP_MS, Math.max(0, Math.ceil(next - this.#clock.now())));
  }

  async #tryFire(entry: Entry): Promise<void> {
    try {
      await answered(this.#fire(entry), ANSWER_LIMIT_MS);
      entry.failures = 0;
    } catch (error) {
      entry.nextMs = this.#clock.now() + backOffMs(++entry.failures);
      if (entry.failures === 1) this.#options.log.warn("a cron could not be fired, will be tried again", { cron: entry.registration.name, err: toError(error) });
    }
  }

  async #fire(entry: Entry): Promise<void> {
    const tick = dueTick(entry, this.#clock.now());
    if (tick === null) return void (entry.nextMs = nextTick(entry.cron, entry.lastTickMs));
    const lane = queueLane(entry.queue);
    const sentAt = now();
    const result = await this.#table.fire({
      name: entry.registration.name,
      lastTickMs: entry.lastTickMs,
      tickMs: tick.scheduledAtMs,
      queue: entry.queue,
      lane,
      payload: JSON.stringify(tick),
      headers: encodeJobHeaders({ requestIdJson: JSON.stringify(randomUUID()), metaJson: "{}" }, this.#options.nodeId),
    });
    if (result === undefined) return this.#register(entry);
    this.#clock.set(result.nowMs, sentAt);
    this.#planNext(entry, tick.scheduledAtMs, result);
    if (result.fired) this.#options.worker.wake([lane]);
  }

  #planNext(entry: Entry, tickMs: number, result: FireResult): void {
    // Due, untaken, and not fired: the job of an earlier tick is still there. The next tick will stand for this one too.
    const busy = !result.fired && result.lastTickMs === entry.lastTickMs && result.nowMs >= tickMs;
    entry.lastTickMs = result.fired ? tickMs : result.lastTickMs;
    entry.nextMs = nextTick(entry.cron, busy ? tickMs : entry.lastTickMs);
  }

  async #readClock(): Promise<void> {
    const sentAt = now();
    await this.#table.nowMs().then(
      (ms) => this.#clock.set(ms, sentAt),
      (error: unknown) => this.#options.log.debug("the database's clock could not be read", { err: toError(error) }),
    );
  }
}

function handlerOf({ queue, registration }: Entry): InternalRegistration {
  const { name, handler } = registration;
  return {
    kind: "internal",
    queue,
    target: { kind: "cron", name, handler: (ctx, tick) => handler(ctx, tick as CronTick) },
    // Of its own, so that no busy queue can hold a cron up.
    options: { concurrency: 1 },
  };
}

function parseSchedule({ name, schedule }: CronRegistration, timezone: string): Cron {
  try {
    const cron = new Cron(schedule, { paused: true, timezone });
    // Croner looks at the time zone only when it computes a time.
    cron.nextRun();
    return cron;
  } catch (error) {
    throw new MeshConfigurationError(
      `cron "${name}": schedule "${schedule}" in time zone "${timezone}" cannot be read: ${toError(error).message}; ` +
        `give a cron expression as croner reads it ("0 3 * * *") and an IANA time zone ("Europe/Berlin")`,
      { cause: error },
    );
  }
}

function nextTick(cron: Cron, afterMs: number): number {
  return cron.nextRun(new Date(afterMs))?.getTime() ?? Infinity;
}

/** The latest tick after the last one that is due at `nowMs`, or null. */
function dueTick(entry: Entry, nowMs: number): CronTick | null {
  let latest: number | null = null;
  let counted = 0;
  for (let at = nextTick(entry.cron, entry.lastTickMs); at <= nowMs; at = nextTick(entry.cron, at)) {
    if (counted === MAX_COUNTED) return { scheduledAtMs: latestBefore(entry.cron, nowMs, at), missed: MAX_COUNTED };
    latest = at;
    counted++;
  }
  return latest === null ? null : { scheduledAtMs: latest, missed: counted - 1 };
}

function latestBefore(cron: Cron, nowMs: number, fallback: number): number {
  return cron.previousRuns(1, new Date(nowMs))[0]?.getTime() ?? fallback;
}
