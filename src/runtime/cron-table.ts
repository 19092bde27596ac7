import type { Storage } from "../contract/storage.js";

/** The ledger of one cron. All times are the database's clock, ms since the epoch. */
export interface CronState {
  /** The last tick that fired; at first the moment of registration. */
  readonly lastTickMs: number;
  readonly nowMs: number;
}

export interface FireRequest {
  readonly name: string;
  /** What the caller took for the last tick: nothing fires where it is another by now. */
  readonly lastTickMs: number;
  readonly tickMs: number;
  readonly queue: string;
  readonly lane: string;
  readonly payload: string;
  readonly headers: string;
}

export interface FireResult extends CronState {
  readonly fired: boolean;
}

export class CronTable {
  readonly #storage: Storage;
  readonly #crons: string;
  readonly #jobs: string;
  readonly #ready: string;
  readonly #deferred: string;
  readonly #jobId: string;

  constructor(storage: Storage) {
    this.#storage = storage;
    this.#crons = storage.table("_chimpbase_mesh_crons");
    this.#jobs = storage.table("_chimpbase_mesh_jobs");
    this.#ready = storage.table("_chimpbase_mesh_ready");
    this.#deferred = storage.table("_chimpbase_mesh_deferred");
    this.#jobId = storage.table("_chimpbase_mesh_job_id");
  }

  async register(name: string, schedule: string, timezone: string): Promise<CronState> {
    const [state] = await this.#storage.query<CronState>(
      `INSERT INTO ${this.#crons} AS c (name, schedule, timezone, last_tick_ms)
       VALUES ($1, $2, $3, floor(extract(epoch FROM clock_timestamp()) * 1000))
       ON CONFLICT (name) DO UPDATE SET schedule = EXCLUDED.schedule, timezone = EXCLUDED.timezone
       RETURNING c.last_tick_ms::float8 AS "lastTickMs", (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "nowMs"`,
      [name, schedule, timezone],
    );
    return state as CronState;
  }

  async nowMs(): Promise<number> {
    const [row] = await this.#storage.query<{ ms: number }>("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS ms");
    return (row as { ms: number }).ms;
  }

  /**
   * Takes the tick for the cluster and writes its job, in one: a tick that is taken cannot get lost. Not before its
   * time on this clock, and not while the job of an earlier tick is still there. Nodes that race for it queue up on the
   * row, and the losers read what the winner wrote. Undefined: the cron is not registered.
   */
  async fire(request: FireRequest): Promise<FireResult | undefined> {
    const { name, lastTickMs, tickMs, queue, lane, payload, headers } = request;
    const [result] = await this.#storage.query<FireResult>(
      `WITH cron AS MATERIALIZED (
         SELECT name, last_tick_ms, job_id, extract(epoch FROM clock_timestamp()) * 1000 AS now_ms
         FROM ${this.#crons} WHERE name = $1 FOR UPDATE),
       due AS MATERIALIZED (
         SELECT name, nextval($4::regclass) AS id FROM cron WHERE last_tick_ms = $2::bigint AND now_ms >= $3::bigint
           AND NOT EXISTS (SELECT FROM ${this.#jobs} WHERE id = cron.job_id)
           AND NOT EXISTS (SELECT FROM ${this.#deferred} WHERE id = cron.job_id)),
       ticked AS (
         UPDATE ${this.#crons} AS c SET last_tick_ms = $3::bigint, job_id = due.id FROM due WHERE c.name = due.name),
       added AS (
         INSERT INTO ${this.#jobs} (id, lane, queue, payload, headers) SELECT id, $5, $6, $7, $8 FROM due),
       added_ready AS (INSERT INTO ${this.#ready} (lane, id) SELECT $5, id FROM due)
       SELECT EXISTS (SELECT 1 FROM due) AS fired, last_tick_ms::float8 AS "lastTickMs", now_ms::float8 AS "nowMs" FROM cron`,
      [name, lastTickMs, tickMs, this.#jobId, lane, queue, payload, headers],
    );
    return result;
  }
}
