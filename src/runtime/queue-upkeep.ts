import type { Storage } from "../contract/storage.js";
import { endedClaimsSql } from "../storage/functions.js";
import { groupLaneSql } from "../storage/lanes.js";
import { OLDEST_TRANSACTION_SQL, type OpenTransaction } from "./old-transactions.js";
import { refArrays, RESERVED, type FailedJob, type JobRef } from "./queue.js";

/** A claimed job whose lease has run out. */
export interface ExpiredJob extends JobRef {
  readonly lane: string;
  readonly event: string | null;
  /** The lost one included. */
  readonly attempt: number;
  readonly history: string;
  /** Node that held it. */
  readonly holder: string;
  /** Database clock. */
  readonly leaseEndedAtMs: number;
}

export interface LaneState {
  readonly lane: string;
  /** Jobs could be claimed already before this look. */
  readonly ready: boolean;
  /** Deferred jobs that this look has made ready; at `UPKEEP_BATCH` there may be more. */
  readonly moved: number;
  /** Ms until the next deferred job is due; null where there is none. */
  readonly nextDueMs: number | null;
  readonly expired: readonly ExpiredJob[];
  /** Of the database, the same in each row; null where it was not asked for, or there is none. */
  readonly oldestTransaction: OpenTransaction | null;
  /** The groups that were asked for have patterns in no served lane; the same in each row. */
  readonly hasOtherPatterns: boolean;
}

/** What a look asks beside the lanes. */
export interface LookExtras {
  /** Claims of which nothing is left, as their holder believes. */
  readonly ended?: readonly string[];
  readonly withOldest?: boolean;
  /** Groups whose patterns are compared with the lanes. */
  readonly groups?: readonly string[];
}

/** Most deferred jobs of a lane, and most expired ones of all lanes, that one look moves. */
export const UPKEEP_BATCH = 500;

/** The statements that keep lanes moving while nobody holds their jobs. */
export class QueueUpkeep {
  readonly #storage: Storage;
  readonly #jobs: string;
  readonly #ready: string;
  readonly #claims: string;
  readonly #deferred: string;
  readonly #deadLetters: string;
  readonly #groups: string;

  constructor(storage: Storage) {
    this.#storage = storage;
    this.#jobs = storage.table("_chimpbase_mesh_jobs");
    this.#ready = storage.table("_chimpbase_mesh_ready");
    this.#claims = storage.table("_chimpbase_mesh_claims");
    this.#deferred = storage.table("_chimpbase_mesh_deferred");
    this.#deadLetters = storage.table("_chimpbase_mesh_dead_letters");
    this.#groups = storage.table("_chimpbase_mesh_groups");
  }

  /**
   * One look at the lanes, all that an idle node costs: moves due jobs into the queue, and tells what is ready, what
   * has expired, and when to look again. An expired job that is locked belongs to a live transaction, and is skipped. Claims
   * of which nothing is left go: those in `ended`, and those whose holder did not live to say so.
   * `statement_timestamp()` is stable, so that the index on `run_at` can serve; `clock_timestamp()` is not.
   */
  async look(lanes: readonly string[], { ended = [], withOldest = false, groups = [] }: LookExtras = {}): Promise<LaneState[]> {
    const othersSql = `EXISTS (SELECT FROM ${this.#groups} WHERE grp = ANY ($3::text[]) AND ${groupLaneSql("grp", "pattern")} <> ALL ($1::text[]))`;
    return this.#storage.query<LaneState>(
      `WITH served AS MATERIALIZED (SELECT unnest($1::text[]) AS lane),
       due AS MATERIALIZED (
         SELECT d.id FROM served CROSS JOIN LATERAL (
           SELECT id FROM ${this.#deferred} WHERE lane = served.lane AND run_at <= statement_timestamp()
           ORDER BY run_at, id LIMIT ${UPKEEP_BATCH} FOR UPDATE SKIP LOCKED) AS d),
       moved AS (
         DELETE FROM ${this.#deferred} WHERE id = ANY (ARRAY(SELECT id FROM due))
         RETURNING id, lane, queue, grp, event, payload, headers, attempt, history, created_at, fence),
       added AS (
         INSERT INTO ${this.#jobs} (id, lane, queue, grp, event, payload, headers, attempt, history, created_at, fence)
         SELECT * FROM moved RETURNING lane, id, fence),
       added_ready AS (INSERT INTO ${this.#ready} (lane, id, fence) SELECT lane, id, fence FROM added),
       lapsed AS MATERIALIZED (SELECT * FROM ${this.#claims} WHERE lease_until < statement_timestamp()),
       expired AS MATERIALIZED (
         SELECT job.*, token, holder, (extract(epoch FROM lease_until) * 1000)::float8 AS "leaseEndedAtMs"
         FROM lapsed CROSS JOIN LATERAL unnest(ids, fences) AS held(id, fence) CROSS JOIN LATERAL (
           SELECT id::text, fence, lane, event, attempt + 1 AS attempt, history FROM ${this.#jobs}
           WHERE id = held.id AND fence = held.fence AND lane = ANY ($1::text[]) FOR UPDATE SKIP LOCKED) AS job
         LIMIT ${UPKEEP_BATCH}),
       ended AS (${endedClaimsSql(this.#claims, this.#jobs, "(token = ANY ($2::uuid[]) OR lease_until < statement_timestamp())")})
       SELECT served.lane,
         (SELECT id FROM ${this.#ready} WHERE lane = served.lane ORDER BY id LIMIT 1) IS NOT NULL AS ready,
         (SELECT count(*)::int FROM added WHERE added.lane = served.lane) AS moved,
         (SELECT ceil(extract(epoch FROM run_at - statement_timestamp()) * 1000)::float8 FROM ${this.#deferred}
           WHERE lane = served.lane AND run_at > statement_timestamp() ORDER BY run_at LIMIT 1) AS "nextDueMs",
         coalesce((SELECT json_agg(expired) FROM expired WHERE expired.lane = served.lane), '[]') AS expired,
         ${withOldest ? OLDEST_TRANSACTION_SQL : "NULL::json"} AS "oldestTransaction",
         ${groups.length > 0 ? othersSql : "false"} AS "hasOtherPatterns"
       FROM served`,
      groups.length > 0 ? [lanes, ended, groups] : [lanes, ended],
      RESERVED,
    );
  }

  /**
   * Takes expired jobs from their holders: back into `lane`, or to the dead letters where there is an `error`. Fenced, and
   * the lease is asked for once more, since the holder may have extended it meanwhile. Returns the lanes that have jobs now.
   */
  async reclaim(jobs: readonly Omit<FailedJob, "delayMs">[]): Promise<string[]> {
    const rows = await this.#storage.query<{ lane: string }>(
      `WITH lost AS MATERIALIZED (
         SELECT j.id, l.new_lane, l.new_history, l.error
         FROM unnest($1::bigint[], $2::int[], $3::uuid[], $4::text[], $5::text[], $6::text[]) AS l(id, fence, token, new_lane, new_history, error)
           JOIN ${this.#jobs} AS j ON j.id = l.id AND j.fence = l.fence
           JOIN ${this.#claims} AS c ON c.token = l.token AND c.lease_until < statement_timestamp()
         FOR UPDATE OF j, c SKIP LOCKED),
       buried AS (
         DELETE FROM ${this.#jobs} AS j USING lost AS l WHERE j.id = l.id AND l.error IS NOT NULL
         RETURNING j.id, l.new_lane, j.queue, j.grp, j.event, j.payload, j.headers, j.attempt + 1, l.error, l.new_history, j.created_at),
       dead AS (
         INSERT INTO ${this.#deadLetters} (id, lane, queue, grp, event, payload, headers, attempt, error, history, created_at)
         SELECT * FROM buried),
       freed AS (
         UPDATE ${this.#jobs} AS j SET fence = j.fence + 1, attempt = j.attempt + 1, lane = l.new_lane, history = l.new_history
         FROM lost AS l WHERE j.id = l.id AND l.error IS NULL RETURNING j.lane, j.id, j.fence)
       INSERT INTO ${this.#ready} (lane, id, fence) SELECT lane, id, fence FROM freed RETURNING lane`,
      [...refArrays(jobs), jobs.map((job) => job.lane), jobs.map((job) => job.history), jobs.map((job) => job.error)],
      RESERVED,
    );
    return rows.map((row) => row.lane);
  }
}
