import type { QueryOptions, Session, Storage, Transaction } from "../contract/storage.js";

/** How many jobs of one lane a claim may take. */
export interface LaneQuota {
  readonly lane: string;
  readonly quota: number;
}

/** What proves that a job is ours: no two claims of a job ever share a token. */
export interface JobRef {
  readonly id: string;
  readonly token: string;
}

export interface ClaimedJob extends JobRef {
  readonly lane: string;
  readonly queue: string;
  readonly group: string | null;
  readonly event: string | null;
  /** JSON, as written. */
  readonly payload: string;
  readonly headers: string;
  /** This attempt included. */
  readonly attempt: number;
  readonly history: string;
  readonly createdAtMs: number;
  /** Database clock. */
  readonly claimedAtMs: number;
}

/** What becomes of a job whose attempt failed: deferred by `delayMs` into `lane`, or, with `error`, a dead letter. */
export interface FailedJob extends JobRef {
  readonly lane: string;
  readonly delayMs: number;
  readonly history: string;
  readonly error: string | null;
}

export interface ReleasedJob extends JobRef {
  /** True: the claim does not count as an attempt. */
  readonly unstarted: boolean;
}

/** What holds, ends and gives up leases must not wait for the transactions of the very jobs that it is about. */
export const RESERVED: QueryOptions = { reserved: true, answerTimeoutMs: 10_000 };
const MOVED_COLUMNS = "id, lane, queue, grp, event, payload, headers, attempt, created_at";

/**
 * The statements on claimed jobs. Each that changes a job is fenced: it names id and token, and returns what it found,
 * so that a holder that has lost its lease changes nothing and learns of it.
 */
export class JobQueue {
  readonly #storage: Storage;
  readonly #nodeId: string;
  readonly #leaseMs: number;
  readonly #jobs: string;
  readonly #deferred: string;
  readonly #deadLetters: string;

  constructor(storage: Storage, nodeId: string, leaseMs: number) {
    this.#storage = storage;
    this.#nodeId = nodeId;
    this.#leaseMs = leaseMs;
    this.#jobs = storage.table("_chimpbase_mesh_jobs");
    this.#deferred = storage.table("_chimpbase_mesh_deferred");
    this.#deadLetters = storage.table("_chimpbase_mesh_dead_letters");
  }

  /**
   * Oldest ready jobs of each lane, in order. They are ordered by `id + 0`, which only the lanes' own index can serve: by
   * `id` the planner may walk the primary key through the backlog of all other lanes. The picked ids go through an array: a join would be planned on the guess
   * that LIMIT takes a tenth of the table, and a plain IN may run its subquery again and lock more. The commit does not
   * wait for the disk: a claim lost in a crash of Postgres only returns the job. `token` must be new at each call.
   */
  async claim(quotas: readonly LaneQuota[], token: string): Promise<ClaimedJob[]> {
    const rows = await this.#storage.query<Omit<ClaimedJob, "token">>(
      `WITH want AS MATERIALIZED (
         SELECT w.lane, w.quota FROM unnest($1::text[], $2::int[]) AS w(lane, quota)
         WHERE (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL),
       picked AS MATERIALIZED (
         SELECT ready.id FROM want CROSS JOIN LATERAL (
           SELECT id FROM ${this.#jobs} WHERE lane = want.lane AND token IS NULL
           ORDER BY id + 0 LIMIT want.quota FOR UPDATE SKIP LOCKED) AS ready)
       UPDATE ${this.#jobs} SET token = $3::uuid, holder = $4, attempt = attempt + 1,
         lease_until = clock_timestamp() + $5::float8 * interval '1 millisecond'
       WHERE id = ANY (ARRAY(SELECT id FROM picked))
       RETURNING id, lane, queue, grp AS "group", event, payload, headers, attempt, history,
         floor(extract(epoch FROM created_at) * 1000)::float8 AS "createdAtMs",
         (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "claimedAtMs"`,
      [quotas.map((want) => want.lane), quotas.map((want) => want.quota), token, this.#nodeId, this.#leaseMs],
    );
    // RETURNING has no order of its own.
    return rows.map((row) => ({ ...row, token })).sort(byId);
  }

  /** Gives back all that a claim took whose answer was lost. */
  async disown(lanes: readonly string[], token: string): Promise<void> {
    await this.#storage.query(
      `UPDATE ${this.#jobs} SET token = NULL, holder = NULL, lease_until = NULL, attempt = attempt - 1
       WHERE lane = ANY ($1::text[]) AND token = $2::uuid`,
      [lanes, token],
    );
  }

  /** Returns the ids that were still ours, and are done now. */
  async complete(jobs: readonly JobRef[]): Promise<Set<string>> {
    return idsOf(await this.#storage.query<{ id: string }>(
      `DELETE FROM ${this.#jobs} AS j USING unnest($1::bigint[], $2::uuid[]) AS done(id, token)
       WHERE j.id = done.id AND j.token = done.token RETURNING j.id`,
      refArrays(jobs),
      RESERVED,
    ));
  }

  /** Moves each job to where its failure sends it. Returns the ids that were still ours. */
  async fail(jobs: readonly FailedJob[]): Promise<Set<string>> {
    return idsOf(await this.#storage.query<{ id: string }>(
      `WITH failed AS (
         SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::float8[], $5::text[], $6::text[])
           AS f(id, token, new_lane, delay_ms, new_history, error)),
       gone AS (
         DELETE FROM ${this.#jobs} AS j USING failed AS f WHERE j.id = f.id AND j.token = f.token
         RETURNING j.id, f.new_lane AS lane, j.queue, j.grp, j.event, j.payload, j.headers, j.attempt, j.created_at,
           f.delay_ms, f.new_history, f.error),
       later AS (
         INSERT INTO ${this.#deferred} (${MOVED_COLUMNS}, history, run_at)
         SELECT ${MOVED_COLUMNS}, new_history, clock_timestamp() + delay_ms * interval '1 millisecond'
         FROM gone WHERE error IS NULL),
       dead AS (
         INSERT INTO ${this.#deadLetters} (${MOVED_COLUMNS}, history, error)
         SELECT ${MOVED_COLUMNS}, new_history, error FROM gone WHERE error IS NOT NULL)
       SELECT id FROM gone`,
      [...refArrays(jobs), jobs.map((job) => job.lane), jobs.map((job) => job.delayMs),
        jobs.map((job) => job.history), jobs.map((job) => job.error)],
      RESERVED,
    ));
  }

  /** Makes jobs ready again. */
  async release(jobs: readonly ReleasedJob[]): Promise<void> {
    await this.#storage.query(
      `UPDATE ${this.#jobs} AS j SET token = NULL, holder = NULL, lease_until = NULL, attempt = j.attempt - r.uncounted
       FROM unnest($1::bigint[], $2::uuid[], $3::int[]) AS r(id, token, uncounted)
       WHERE j.id = r.id AND j.token = r.token`,
      [...refArrays(jobs), jobs.map((job) => (job.unstarted ? 1 : 0))],
      RESERVED,
    );
  }

  /**
   * Extends the leases, and returns the ids that are still ours. A row locked elsewhere is left alone (its lock protects
   * it, and waiting would hold up all others), but counts as ours as long as it bears our token.
   */
  async extend(jobs: readonly JobRef[]): Promise<Set<string>> {
    return idsOf(await this.#storage.query<{ id: string }>(
      `WITH held AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::uuid[]) AS h(id, token)),
       free AS MATERIALIZED (
         SELECT j.id FROM ${this.#jobs} AS j JOIN held AS h ON j.id = h.id AND j.token = h.token
         FOR UPDATE OF j SKIP LOCKED),
       extended AS (
         UPDATE ${this.#jobs} SET lease_until = clock_timestamp() + $3::float8 * interval '1 millisecond'
         WHERE id = ANY (ARRAY(SELECT id FROM free)))
       SELECT j.id FROM ${this.#jobs} AS j JOIN held AS h ON j.id = h.id AND j.token = h.token`,
      [...refArrays(jobs), this.#leaseMs],
      // What waits must not keep the next try from coming in time.
      { reserved: true, acquireTimeoutMs: this.#leaseMs / 3, answerTimeoutMs: this.#leaseMs / 3 },
    ));
  }

  /**
   * Whether the job still bears our token, after a commit whose answer was lost. The lock waits for a backend that may
   * still be committing, so the answer is final.
   */
  async stillHeld(job: JobRef): Promise<boolean> {
    const rows = await this.#storage.query(
      `SELECT id FROM ${this.#jobs} WHERE id = $1 AND token = $2::uuid FOR UPDATE`,
      [job.id, job.token],
    );
    return rows.length > 0;
  }

  /**
   * First statement of a job's transaction: false where the token is stale. The row lock keeps others off for as long
   * as the transaction lives; the idle limit ends it, and the lock, where this process is frozen.
   */
  async lock(tx: Transaction, job: JobRef): Promise<boolean> {
    const [row] = await tx.query<{ id: string | null }>(
      `WITH own AS MATERIALIZED (SELECT id FROM ${this.#jobs} WHERE id = $1 AND token = $2::uuid FOR UPDATE)
       SELECT set_config('idle_in_transaction_session_timeout', $3, true), (SELECT id FROM own) AS id`,
      [job.id, job.token, String(Math.ceil(this.#leaseMs))],
    );
    return typeof row?.id === "string";
  }

  /** The completion inside the job's own transaction: false where the job is no longer ours. */
  async completeWithin(tx: Session, job: JobRef): Promise<boolean> {
    const rows = await tx.query(`DELETE FROM ${this.#jobs} WHERE id = $1 AND token = $2::uuid RETURNING id`, [job.id, job.token]);
    return rows.length > 0;
  }
}

/** Ids are 64-bit integers without leading zeros: the shorter is the smaller. */
function byId(a: JobRef, b: JobRef): number {
  return a.id.length - b.id.length || (a.id < b.id ? -1 : 1);
}

function refArrays(jobs: readonly JobRef[]): [string[], string[]] {
  return [jobs.map((job) => job.id), jobs.map((job) => job.token)];
}

function idsOf(rows: readonly { readonly id: string }[]): Set<string> {
  return new Set(rows.map((row) => row.id));
}
