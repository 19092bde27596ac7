import { randomUUID } from "node:crypto";
import type { Logger } from "../logger.js";
import type { EventBus, IncomingEvent, SubscribeOptions } from "../contract/messaging.js";
import type { Listener, Storage } from "../contract/storage.js";
import { MeshConfigurationError, MeshError } from "../errors.js";
import { within } from "../pipeline/time-limit.js";
import { Deliveries } from "./deliveries.js";
import { EventLog, type LogRow } from "./event-log.js";
import { decodeRow } from "./event-record.js";
import { LogReader } from "./log-reader.js";
import { createOutbox, type RunningOutbox } from "./outbox.js";
import type { Subscription } from "./subscription.js";
import { decodeWake, WAKE_CHANNEL, type News } from "./wake.js";

export interface EventBusOptions {
  readonly storage: Storage;
  /** UUID of this boot of this node. */
  readonly nodeId: string;
  readonly log: Logger;
  /** Lanes to which another node has added jobs. The outbox of this node tells of its own. */
  readonly onJobs?: (lanes: readonly string[]) => void;
  /** As `onJobs`, of jobs that fall due in `delayMs`. */
  readonly onDelayed?: (lane: string, delayMs: number) => void;
  /** How long events stay readable, in ms. The same for all nodes of a mesh. Default 600000. */
  readonly retentionMs?: number;
}

/** A node that may have missed events for good gets this one itself. Payload: `{ nodeId, sinceMs }`, database clock. */
export const RESYNC_EVENT = "__chimpbase.mesh.info.resync";

const RETENTION_MS = 600_000;
const LONGEST_GC_INTERVAL_MS = 60_000;
const STOP_LIMIT_MS = 5_000;

/**
 * Broadcast events over Postgres: a table holds them for the retention, NOTIFY says when to look.
 *
 * A subscriber gets every event committed after `start`, once, across lost connections and restarts of Postgres; past the
 * retention it gets `__chimpbase.mesh.info.resync`. Events of one emitting node come in order of their emits. An event
 * emitted in a transaction counts as emitted at its commit; between transactions that overlap there is no order.
 *
 * The tables must exist: the host makes them at start.
 */
export class PostgresListenEventBus implements EventBus {
  readonly #options: EventBusOptions;
  readonly #eventLog: EventLog;
  readonly #retentionMs: number;
  readonly #deliveries: Deliveries;
  readonly #reader: LogReader<Subscription>;
  readonly #outbox: RunningOutbox;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  #listener: Listener | undefined;
  #live = false;
  #stopped = false;
  #gcTimer: NodeJS.Timeout | undefined;
  #collecting: Promise<void> | undefined;
  #collectable: string | null = null;

  constructor(options: EventBusOptions) {
    const { storage, nodeId, log, retentionMs = RETENTION_MS } = options;
    if (!(Number.isFinite(retentionMs) && retentionMs > 0)) throw new MeshConfigurationError(`retentionMs must be a positive number of milliseconds, not ${retentionMs}`);
    this.#options = options;
    this.#retentionMs = retentionMs;
    this.#eventLog = new EventLog(storage, () => this.#deliveries.interest);
    this.#outbox = createOutbox({ storage, nodeId, log });
    this.#deliveries = new Deliveries({ log, onRoom: () => this.#reader.look() });
    this.#reader = new LogReader({
      eventLog: this.#eventLog,
      log,
      retentionMs,
      onRow: (row, only) => this.#deliver(row, only),
      onGap: (sinceMs) => this.#deliverResync(sinceMs),
      takeFull: () => this.#deliveries.takeFull(),
      onCaughtUp: (subscription) => (subscription.behind = false),
      live: () => this.#live,
    });
  }

  /** False while LISTEN is not in force, or nothing arrives by it; events then come by polling. */
  get live(): boolean {
    return this.#live && !this.#reader.deaf;
  }

  /** Events committed from now on arrive. Rejects where Postgres cannot be reached. A bus starts once. */
  start(): Promise<void> {
    return (this.#starting ??= this.#start());
  }

  /** Takes in nothing more, and drops what no handler has begun. Handlers under way run on: see `inFlight`. */
  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  subscribe(pattern: string, handler: (event: IncomingEvent) => unknown, options?: SubscribeOptions): () => void {
    return this.#deliveries.subscribe(pattern, handler, options);
  }

  /** Broadcasts outside any context, for use of the bus on its own. Resolves once the event is committed. */
  async publish(event: string, payload: unknown): Promise<void> {
    await this.#outbox.emit({ name: event, payload, requestId: randomUUID(), meta: {} }, "broadcast");
  }

  /** Names of the events whose handlers run now. */
  inFlight(): readonly string[] {
    return this.#deliveries.inFlight();
  }

  async #start(): Promise<void> {
    const { storage } = this.#options;
    // LISTEN first: what is committed after the reader has taken its place is announced.
    const listener = await storage.listen([storage.channel(WAKE_CHANNEL)], {
      onNotify: (_channel, payload) => this.#onNotify(payload),
      onConnected: () => this.#onConnected(),
      onDisconnected: (error) => this.#onDisconnected(error),
    });
    try {
      await this.#reader.start();
      if (this.#stopped) throw new MeshError("the bus was stopped while it started", { code: "BUS_STOPPED" });
    } catch (error) {
      this.#live = false;
      await listener.close();
      throw error;
    }
    this.#listener = listener;
    this.#scheduleGc();
  }

  async #stop(): Promise<void> {
    this.#stopped = true;
    this.#live = false;
    await this.#starting?.catch(() => undefined);
    clearTimeout(this.#gcTimer);
    await this.#listener?.close();
    await this.#reader.stop();
    this.#deliveries.close();
    if (this.#collecting !== undefined) await within(this.#collecting, STOP_LIMIT_MS);
    await this.#outbox.close();
  }

  #onNotify(payload: string): void {
    const wake = decodeWake(payload);
    if (wake === null) return this.#options.log.debug("a notification that is no wake was ignored", { payload: payload.slice(0, 200) });
    const { nodeId, onJobs, onDelayed } = this.#options;
    this.#onNews(wake.events);
    if (wake.nodeId === nodeId) return;
    if (wake.lanes.length > 0) onJobs?.(wake.lanes);
    for (const [lane, delayMs] of wake.delayed) onDelayed?.(lane, delayMs);
  }

  #onNews(events: News): void {
    if (events !== "none") this.#reader.notified(events === "any" || this.#deliveries.wants(events));
  }

  #onConnected(): void {
    this.#live = !this.#stopped;
    this.#reader.reconnected();
  }

  #onDisconnected(error: Error): void {
    this.#live = false;
    this.#options.log.warn("the listening connection was lost; events come by polling until it is back", { err: error });
    this.#reader.reconnected();
  }

  #deliver(row: LogRow, only: Subscription | null): void {
    try {
      const events = decodeRow(row.events!, row.nodeId, row.emittedAtMs);
      const bytes = row.bytes / events.length;
      for (const event of events) {
        if (only === null) this.#deliveries.add(event, bytes);
        else if (only.matches(event.name)) only.add(event, bytes);
      }
    } catch (error) {
      this.#options.log.error("a row of the event log cannot be read", { row: row.id, err: error });
    }
  }

  #deliverResync(sinceMs: number): void {
    const { nodeId, log } = this.#options;
    log.warn("events may have been missed: this node did not read them within the retention", { sinceMs, retentionMs: this.#retentionMs });
    const payload = { nodeId, sinceMs };
    this.#deliveries.add({ id: randomUUID(), name: RESYNC_EVENT, payload, requestId: randomUUID(), meta: {}, nodeId, emittedAtMs: sinceMs }, 0);
  }

  #scheduleGc(): void {
    if (this.#stopped) return;
    const interval = Math.min(LONGEST_GC_INTERVAL_MS, this.#retentionMs / 4);
    // Spread, so that the nodes of a mesh do not come at the same moment.
    this.#gcTimer = setTimeout(() => (this.#collecting = this.#collect()), interval * (0.75 + Math.random() / 2));
  }

  async #collect(): Promise<void> {
    try {
      this.#collectable = await this.#eventLog.collect(this.#retentionMs, this.#collectable);
    } catch (error) {
      this.#options.log.debug("the event log was not cleaned; the next round will", { err: error });
    }
    this.#scheduleGc();
  }
}
