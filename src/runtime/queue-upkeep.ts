import type { Storage } from "../contract/storage.js";
import { OLDEST_TRANSACTION_SQL, type OpenTransaction } from "./old-transactions.js";
import { RESERVED, type FailedJob } from "./queue.js";

/** A claimed job whose lease has run out. */
export interface ExpiredJob {
  readonly id: string;
  readonly token: string;
  readonly lane: string;
  readonly event: string | null;
  readonly attempt: number;
  readonly history: string;
  /** Node that held it. */
  readonly holder: string | null;
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
}

export interface GroupPattern {
  readonly group: string;
  readonly pattern: string;
  /** Null for a plain name. */
  readonly regex: string | null;
}

/** Most deferred or expired jobs of a lane that one look moves. */
export const UPKEEP_BATCH = 500;

/** The statements that keep lanes moving while nobody holds their jobs. */
export class QueueUpkeep {
  readonly #storage: Storage;
  readonly #jobs: string;
  readonly #deferred: string;
  readonly #deadLetters: string;
  readonly #groups: string;

  constructor(storage: Storage) {
    this.#storage = storage;
    this.#jobs = storage.table("_chimpbase_mesh_jobs");
    this.#deferred = storage.table("_chimpbase_mesh_deferred");
    this.#deadLetters = storage.table("_chimpbase_mesh_dead_letters");
    this.#groups = storage.table("_chimpbase_mesh_groups");
  }

  /**
   * One look at the lanes, all that an idle node costs: moves due jobs into the queue, and tells what is ready, what
   * has expired, and when to look again. An expired job that is locked belongs to a live transaction, and is skipped.
   * `id + 0` as in the claim; `statement_timestamp()` is stable, so that the index on `run_at` can serve; `clock_timestamp()` is not.
   */
  async look(lanes: readonly string[], withOldest = false): Promise<LaneState[]> {
    return this.#storage.query<LaneState>(
      `WITH served AS MATERIALIZED (SELECT unnest($1::text[]) AS lane),
       due AS MATERIALIZED (
         SELECT d.id FROM served CROSS JOIN LATERAL (
           SELECT id FROM ${this.#deferred} WHERE lane = served.lane AND run_at <= statement_timestamp()
           ORDER BY run_at, id LIMIT ${UPKEEP_BATCH} FOR UPDATE SKIP LOCKED) AS d),
       moved AS (
         DELETE FROM ${this.#deferred} WHERE id = ANY (ARRAY(SELECT id FROM due))
         RETURNING id, lane, queue, grp, event, payload, headers, attempt, history, created_at),
       added AS (
         INSERT INTO ${this.#jobs} (id, lane, queue, grp, event, payload, headers, attempt, history, created_at)
         SELECT * FROM moved RETURNING lane),
       expired AS MATERIALIZED (
         SELECT e.* FROM served CROSS JOIN LATERAL (
           SELECT id::text, token, lane, event, attempt, history, holder,
             (extract(epoch FROM lease_until) * 1000)::float8 AS "leaseEndedAtMs"
           FROM ${this.#jobs} WHERE lane = served.lane AND token IS NOT NULL AND lease_until < statement_timestamp()
           ORDER BY id + 0 LIMIT ${UPKEEP_BATCH} FOR UPDATE SKIP LOCKED) AS e)
       SELECT served.lane,
         (SELECT id FROM ${this.#jobs} WHERE lane = served.lane AND token IS NULL ORDER BY id + 0 LIMIT 1) IS NOT NULL AS ready,
         (SELECT count(*)::int FROM added WHERE added.lane = served.lane) AS moved,
         (SELECT ceil(extract(epoch FROM run_at - statement_timestamp()) * 1000)::float8 FROM ${this.#deferred}
           WHERE lane = served.lane AND run_at > statement_timestamp() ORDER BY run_at LIMIT 1) AS "nextDueMs",
         coalesce((SELECT json_agg(expired) FROM expired WHERE expired.lane = served.lane), '[]') AS expired,
         ${withOldest ? OLDEST_TRANSACTION_SQL : "NULL::json"} AS "oldestTransaction"
       FROM served`,
      [lanes],
      RESERVED,
    );
  }

  /**
   * Takes expired jobs from their holders: back into `lane`, or to the dead letters where there is an `error`. Fenced by
   * the old token, and by the lease once more, since the holder may have extended it meanwhile. Returns the lanes that
   * have jobs now.
   */
  async reclaim(jobs: readonly Omit<FailedJob, "delayMs">[]): Promise<string[]> {
    const rows = await this.#storage.query<{ lane: string }>(
      `WITH lost AS MATERIALIZED (
         SELECT j.id, l.new_lane, l.new_history, l.error FROM ${this.#jobs} AS j
         JOIN unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[]) AS l(id, token, new_lane, new_history, error)
           ON j.id = l.id AND j.token = l.token
         WHERE j.lease_until < statement_timestamp() FOR UPDATE OF j SKIP LOCKED),
       buried AS (
         DELETE FROM ${this.#jobs} AS j USING lost AS l WHERE j.id = l.id AND l.error IS NOT NULL
         RETURNING j.id, l.new_lane, j.queue, j.grp, j.event, j.payload, j.headers, j.attempt, l.error, l.new_history, j.created_at),
       dead AS (
         INSERT INTO ${this.#deadLetters} (id, lane, queue, grp, event, payload, headers, attempt, error, history, created_at)
         SELECT * FROM buried)
       UPDATE ${this.#jobs} AS j SET token = NULL, holder = NULL, lease_until = NULL, lane = l.new_lane, history = l.new_history
       FROM lost AS l WHERE j.id = l.id AND l.error IS NULL
       RETURNING j.lane`,
      [jobs.map((job) => job.id), jobs.map((job) => job.token), jobs.map((job) => job.lane),
        jobs.map((job) => job.history), jobs.map((job) => job.error)],
      RESERVED,
    );
    return rows.map((row) => row.lane);
  }

  /**
   * Remembers groups for ever: from now on they get their events, also those emitted while none of their nodes is up. In
   * one order on all nodes: those that boot at the same time would deadlock on each other's rows otherwise.
   */
  async rememberGroups(groups: readonly GroupPattern[]): Promise<void> {
    await this.#storage.query(
      `INSERT INTO ${this.#groups} AS g (grp, pattern, regex)
       SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[]) AS given(grp, pattern, regex) ORDER BY grp, pattern
       ON CONFLICT (grp, pattern) DO UPDATE SET regex = EXCLUDED.regex WHERE g.regex IS DISTINCT FROM EXCLUDED.regex`,
      [groups.map((each) => each.group), groups.map((each) => each.pattern), groups.map((each) => each.regex)],
    );
  }
}
