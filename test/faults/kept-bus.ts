import { PostgresListenEventBus, createLogger } from "@chimpbase/mesh";
import type { Storage } from "#mesh/contract/storage.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { now } from "./history.js";
import type { Journal } from "./journal.js";

const EVENT = "fault.kept";
const RESYNC = "__chimpbase.mesh.info.resync";

export interface KeptBusOptions {
  readonly node: string;
  readonly nodeId: string;
  readonly url: string;
  readonly retentionMs: number;
  readonly journal: Journal;
}

/** A bus with a retention so short that a test can outlast it, beside the host's own with its ten minutes. */
export class KeptBus {
  readonly #bus: PostgresListenEventBus;
  readonly #storage: Storage;

  private constructor(bus: PostgresListenEventBus, storage: Storage) {
    this.#bus = bus;
    this.#storage = storage;
  }

  static async open({ node, nodeId, url, retentionMs, journal }: KeptBusOptions): Promise<KeptBus> {
    const log = createLogger({ level: "silent" });
    const storage = await openPostgres({ url, poolSize: 2, applicationName: `${node}-kept`, log });
    const bus = new PostgresListenEventBus({ storage, nodeId, retentionMs, log });
    bus.subscribe(EVENT, ({ payload }) => {
      const { emitter, seq } = payload as { emitter: string; seq: number };
      journal.add({ kind: "heard", event: "kept", node, emitter, seq, at: now() });
    });
    bus.subscribe(RESYNC, () => journal.add({ kind: "resync", node, at: now() }));
    await bus.start();
    return new KeptBus(bus, storage);
  }

  publish(payload: unknown): Promise<void> {
    return this.#bus.publish(EVENT, payload);
  }

  async close(): Promise<void> {
    await this.#bus.stop();
    await this.#storage.close();
  }
}
