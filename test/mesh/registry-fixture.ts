import { createLogger } from "#mesh/logger.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { Discovery } from "#mesh/mesh/discovery.js";
import { Registry } from "#mesh/mesh/registry.js";
import type { DiscoveryOptions } from "#mesh/mesh/discovery.js";
import type { Storage } from "#mesh/contract/storage.js";
import { createDatabase } from "../support/database.js";

const NOW = "(extract(epoch from clock_timestamp()) * 1000)::bigint";

/** A registry in a database of its own, with rows of foreign nodes written by plain SQL. */
export class RegistryFixture implements AsyncDisposable {
  readonly warnings: string[] = [];
  readonly log = createLogger({ level: "warn", write: (line) => void this.warnings.push(line) });
  readonly #discoveries: Discovery[] = [];
  readonly #drop: () => Promise<void>;

  private constructor(readonly storage: Storage, drop: () => Promise<void>) {
    this.#drop = drop;
  }

  static async open(): Promise<RegistryFixture> {
    const database = await createDatabase();
    const storage = await openPostgres({ url: database.url, log: createLogger({ level: "silent" }) });
    return new RegistryFixture(storage, () => database.drop());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const discovery of this.#discoveries) await discovery.stop();
    await this.storage.close();
    await this.#drop();
  }

  registry(limitMs = 5_000, storage: Storage = this.storage): Registry {
    return new Registry(storage, limitMs);
  }

  discovery(options: Partial<DiscoveryOptions> = {}): Discovery {
    const discovery = new Discovery({
      registry: this.registry(), nodeId: "self", heartbeatMs: 10_000, offlineAfterMs: 30_000, calls: true, allowed: null, log: this.log,
      onGone: () => undefined, onDigest: () => undefined, ...options,
    });
    this.#discoveries.push(discovery);
    return discovery;
  }

  /** Writes the row of a foreign node; `ageMs` is the age of its heartbeat. */
  async node(nodeId: string, row: ForeignRow = {}): Promise<void> {
    const { url = `http://${nodeId}:80`, metadata = "{}", services = offering("v1.users.create"), ageMs = 0 } = row;
    await this.storage.query(
      `INSERT INTO _chimpbase_mesh_nodes VALUES ($1, $2, $3, $4, ${NOW} - $5::bigint, ${NOW} - $5::bigint)
       ON CONFLICT (node_id) DO UPDATE SET advertised_url = excluded.advertised_url, metadata_json = excluded.metadata_json,
         services_json = excluded.services_json, last_heartbeat_ms = excluded.last_heartbeat_ms`,
      [nodeId, url, typeof metadata === "string" ? metadata : JSON.stringify(metadata), services, ageMs],
    );
  }

  /** Foreign nodes whose heartbeats are written every 50 ms until disposed. */
  beating(...nodeIds: readonly string[]): AsyncDisposable {
    let last: Promise<unknown> = Promise.resolve();
    const beat = `UPDATE _chimpbase_mesh_nodes SET last_heartbeat_ms = ${NOW} WHERE node_id = $1 RETURNING node_id`;
    const write = async (nodeId: string): Promise<void> => {
      const rows = await this.storage.query(beat, [nodeId]);
      if (rows.length === 0) await this.node(nodeId);
    };
    const timer = setInterval(() => (last = Promise.all(nodeIds.map(write))), 50);
    return {
      [Symbol.asyncDispose]: async () => {
        clearInterval(timer);
        await last;
      },
    };
  }

  async remove(nodeId: string): Promise<void> {
    await this.storage.query("DELETE FROM _chimpbase_mesh_nodes WHERE node_id = $1", [nodeId]);
  }
}

export interface ForeignRow {
  readonly url?: string | null;
  readonly metadata?: string | object;
  readonly services?: string;
  readonly ageMs?: number;
}

/** `services_json` of one service for each action. */
export function offering(...actions: readonly string[]): string {
  return JSON.stringify(actions.map((action) => ({ name: action.split(".")[1], version: 1, actions: [action], events: [] })));
}

/** A storage whose queries fail while `broken` is set. */
export function breakable(storage: Storage): { readonly storage: Storage; broken: boolean } {
  const state = { storage, broken: false };
  state.storage = new Proxy(storage, {
    get(target, key) {
      if (key === "query" && state.broken) return () => Promise.reject(new Error("connection refused"));
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return state;
}

/** A storage whose queries wait from `stall()` until what that returned is called. */
export function stallable(storage: Storage): { readonly storage: Storage; stall(): () => void } {
  let gate: Promise<void> | null = null;
  const query: Storage["query"] = async (...args) => {
    await gate;
    return storage.query(...args);
  };
  const stalled = new Proxy(storage, {
    get(target, key) {
      const value: unknown = key === "query" ? query : Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const stall = (): (() => void) => {
    let resume!: () => void;
    gate = new Promise<void>((resolve) => (resume = resolve)).then(() => void (gate = null));
    return resume;
  };
  return { storage: stalled, stall };
}
