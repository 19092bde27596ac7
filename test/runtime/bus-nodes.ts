import { randomUUID } from "node:crypto";
import { createLogger, type Logger } from "#mesh/logger.js";
import { migrate } from "#mesh/storage/migrations.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import type { IncomingEvent, OutgoingEvent } from "#mesh/contract/messaging.js";
import type { Storage } from "#mesh/contract/storage.js";
import { PostgresListenEventBus, type EventBusOptions } from "#mesh/runtime/bus.js";
import { createOutbox, type RunningOutbox } from "#mesh/runtime/outbox.js";
import { createDatabase, type TestDatabase } from "../support/database.js";

/** One node as far as messages go: storage, outbox and bus of its own. */
export interface BusNode {
  readonly nodeId: string;
  readonly storage: Storage;
  readonly outbox: RunningOutbox;
  readonly bus: PostgresListenEventBus;
  /** Log lines from level warn up. */
  readonly lines: { readonly msg: string; readonly [key: string]: unknown }[];
  /** Lanes that the bus told of. */
  readonly lanes: string[];
}

/** A database with nodes on it, all closed by `close`. */
export class BusNodes {
  readonly database: TestDatabase;
  readonly #nodes: BusNode[] = [];

  private constructor(database: TestDatabase) {
    this.database = database;
  }

  static async create(): Promise<BusNodes> {
    return new BusNodes(await createDatabase());
  }

  /** A node whose bus runs unless `start` is false. */
  async add(options: Partial<EventBusOptions> & { schema?: string; start?: boolean; onOwnJobs?: (lanes: readonly string[]) => void } = {}): Promise<BusNode> {
    const lines: BusNode["lines"] = [];
    const lanes: string[] = [];
    const log: Logger = createLogger({ level: "warn", write: (line) => void lines.push(JSON.parse(line)) });
    const { nodeId = randomUUID(), schema = "public", start = true, onOwnJobs, ...rest } = options;
    const storage = await openPostgres({ url: this.database.url, schema, log });
    if (schema !== "public") await migrate(storage);
    const outbox = createOutbox({ storage, nodeId, log, ...(onOwnJobs === undefined ? {} : { onJobs: onOwnJobs }) });
    const bus = new PostgresListenEventBus({ storage, nodeId, log, onJobs: (added) => void lanes.push(...added), ...rest });
    const node = { nodeId, storage, outbox, bus, lines, lanes };
    this.#nodes.push(node);
    if (start) await bus.start();
    return node;
  }

  async close(): Promise<void> {
    for (const { outbox, bus, storage } of this.#nodes) {
      await outbox.close();
      await bus.stop();
      await storage.close();
    }
    await this.database.drop();
  }
}

export function event(name: string, payload: unknown = null, origin: Partial<OutgoingEvent> = {}): OutgoingEvent {
  return { name, payload, requestId: "request", meta: {}, ...origin };
}

/** Everything that comes in for `pattern`, in order. */
export function collect({ bus }: BusNode, pattern: string): IncomingEvent[] {
  const events: IncomingEvent[] = [];
  bus.subscribe(pattern, (incoming) => void events.push(incoming));
  return events;
}

export function payloads(events: readonly IncomingEvent[]): unknown[] {
  return events.map(({ payload }) => payload);
}
