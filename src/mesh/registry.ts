import { MeshError } from "../errors.js";
import { METADATA_LIMIT } from "./metadata.js";
import { within } from "../pipeline/time-limit.js";
import type { Storage } from "../contract/storage.js";

/** The database's clock, ms since the epoch: the only wall clock that membership knows. */
const NOW_MS = "(extract(epoch from clock_timestamp()) * 1000)::bigint";

/** Largest `services_json` that is read. */
export const SERVICES_LIMIT = 1024 * 1024;

/** What a node writes of itself. */
export interface OwnRow {
  readonly nodeId: string;
  readonly advertisedUrl: string | null;
  readonly metadataJson: string;
  readonly servicesJson: string;
  /** Database clock; null before the first write. */
  readonly startedAtMs: number | null;
}

export interface WriteResult {
  readonly startedAtMs: number;
  /** The row was not there: the first write, or it had been swept. */
  readonly inserted: boolean;
}

/** One row of the registry without its services, which are read only when their hash is new. */
export interface NodeRow {
  readonly nodeId: string;
  readonly advertisedUrl: string | null;
  /** Null: larger than the limit. */
  readonly metadataJson: string | null;
  /** Null: larger than the limit. */
  readonly servicesHash: string | null;
  readonly startedAtMs: number;
  readonly lastHeartbeatMs: number;
}

export interface RegistryRead {
  /** Database clock at the time of the read. */
  readonly nowMs: number;
  readonly rows: readonly NodeRow[];
}

export interface ServicesRow {
  readonly hash: string;
  readonly json: string;
}

/** SQL of `_chimpbase_mesh_nodes`. Every statement is over within `limitMs`, or rejects. */
export class Registry {
  readonly #storage: Storage;
  readonly #table: string;
  readonly #limitMs: number;

  constructor(storage: Storage, limitMs: number) {
    this.#storage = storage;
    this.#table = storage.table("_chimpbase_mesh_nodes");
    this.#limitMs = limitMs;
  }

  /** Heartbeat and change in one: an upsert, so that a row which was swept comes back whole. */
  async write(row: OwnRow): Promise<WriteResult> {
    const [written] = await this.#query<{ started_at_ms: string; inserted: boolean }>(
      `INSERT INTO ${this.#table} AS node (node_id, advertised_url, metadata_json, services_json, started_at_ms, last_heartbeat_ms)
       VALUES ($1, $2, $3, $4, coalesce($5::bigint, ${NOW_MS}), ${NOW_MS})
       ON CONFLICT (node_id) DO UPDATE SET
         advertised_url = excluded.advertised_url, metadata_json = excluded.metadata_json,
         services_json = excluded.services_json, last_heartbeat_ms = ${NOW_MS}
       RETURNING started_at_ms, (xmax = 0) AS inserted`,
      [row.nodeId, row.advertisedUrl, row.metadataJson, row.servicesJson, row.startedAtMs],
    );
    if (written === undefined) throw new MeshError("the registry did not answer to a heartbeat");
    return { startedAtMs: Number(written.started_at_ms), inserted: written.inserted };
  }

  async remove(nodeId: string): Promise<void> {
    await this.#query(`DELETE FROM ${this.#table} WHERE node_id = $1`, [nodeId]);
  }

  /** Rows with a heartbeat younger than `maxAgeMs`. The outer join gives the clock where there is none. */
  async readLive(maxAgeMs: number): Promise<RegistryRead> {
    return this.#read("node.last_heartbeat_ms > clock.now_ms - $1::bigint", [Math.ceil(maxAgeMs)]);
  }

  /** The rows of these nodes, whatever their age. */
  async readNodes(nodeIds: readonly string[]): Promise<RegistryRead> {
    return this.#read("node.node_id = ANY($1::text[])", [nodeIds]);
  }

  /** Hash and text come from one statement: the text is what its hash says. */
  async readServices(nodeIds: readonly string[]): Promise<ReadonlyMap<string, ServicesRow>> {
    const rows = await this.#query<{ node_id: string; hash: string; services_json: string }>(
      `SELECT node_id, md5(services_json) AS hash, services_json FROM ${this.#table}
       WHERE node_id = ANY($1::text[]) AND octet_length(services_json) <= ${SERVICES_LIMIT}`,
      [nodeIds],
    );
    return new Map(rows.map((row) => [row.node_id, { hash: row.hash, json: row.services_json }]));
  }

  /** Deletes rows older than `olderThanMs`; resolves with how many. */
  async sweep(olderThanMs: number): Promise<number> {
    const rows = await this.#query(
      `DELETE FROM ${this.#table} WHERE last_heartbeat_ms < ${NOW_MS} - $1::bigint RETURNING node_id`,
      [Math.ceil(olderThanMs)],
    );
    return rows.length;
  }

  async #read(condition: string, params: readonly unknown[]): Promise<RegistryRead> {
    const rows = await this.#query<RawRow>(
      `SELECT clock.now_ms, node.node_id, node.advertised_url, node.started_at_ms, node.last_heartbeat_ms,
         CASE WHEN octet_length(node.metadata_json) <= ${METADATA_LIMIT} THEN node.metadata_json END AS metadata_json,
         CASE WHEN octet_length(node.services_json) <= ${SERVICES_LIMIT} THEN md5(node.services_json) END AS services_hash
       FROM (SELECT ${NOW_MS} AS now_ms) AS clock LEFT JOIN ${this.#table} AS node ON ${condition}`,
      params,
    );
    return { nowMs: Number(rows[0]?.now_ms), rows: rows.flatMap(toNodeRow) };
  }

  /**
   * A full pool must not make the node look dead, nor a connection that hangs stop the heartbeat: the statement is given
   * up, and its late outcome ignored.
   */
  async #query<T>(sql: string, params: readonly unknown[]): Promise<T[]> {
    const done = await within(this.#storage.query<T>(sql, params, { acquireTimeoutMs: this.#limitMs, answerTimeoutMs: this.#limitMs, reserved: true }), this.#limitMs);
    if (done !== null) return done.value;
    throw new MeshError(`the registry did not answer within ${this.#limitMs}ms`, { code: "TIMEOUT", status: 503, retryable: true });
  }
}

interface RawRow {
  readonly now_ms: string;
  readonly node_id: string | null;
  readonly advertised_url: string | null;
  readonly metadata_json: string | null;
  readonly services_hash: string | null;
  readonly started_at_ms: string;
  readonly last_heartbeat_ms: string;
}

function toNodeRow(row: RawRow): NodeRow[] {
  if (row.node_id === null) return [];
  return [{
    nodeId: row.node_id,
    advertisedUrl: row.advertised_url,
    metadataJson: row.metadata_json,
    servicesHash: row.services_hash,
    startedAtMs: Number(row.started_at_ms),
    lastHeartbeatMs: Number(row.last_heartbeat_ms),
  }];
}
