import type { Storage } from "../contract/storage.js";
import { endedClaimsSql } from "../storage/functions.js";
import { groupLaneSql } from "../storage/lanes.js";
import { SOLO_PREFIX } from "./lane.js";
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
  readonly othersPatterns: boolean;
}

export interface GroupPattern {
  readonly group: string;
  readonly pattern: string;
  /** Null for a plain name. */
  readonly regex: string | null;
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
/** So many of a lane, the oldest, are looked at for those that can be adopted, each time: what nobody can adopt may be many more. */
const ADOPTION_REACH = 10_000;

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
         ${groups.length > 0 ? othersSql : "false"} AS "othersPatterns"
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

  /**
   * Remembers groups for ever: from now on they get their events, also those emitted while none of their nodes is up. In
   * one order on all nodes: those that boot at the same time would deadlock on each other's rows otherwise.
   */
  async rememberGroups(groups: readonly GroupPattern[]): Promise<void> {
    await this.#storage.query(
      `INSERT INTO ${this.#groups} AS g (grp, pattern, regex, seen_at)
       SELECT DISTINCT *, statement_timestamp() FROM unnest($1::text[], $2::text[], $3::text[]) AS given(grp, pattern, regex) ORDER BY grp, pattern
       ON CONFLICT (grp, pattern) DO UPDATE SET regex = EXCLUDED.regex, seen_at = statement_timestamp()`,
      patternArrays(groups),
    );
  }

  /** Says that a node has these patterns. Those that somebody else is just saying it of are left to them. */
  async affirmPatterns(patterns: readonly GroupPattern[]): Promise<void> {
    await this.#storage.query(
      `UPDATE ${this.#groups} SET seen_at = statement_timestamp() WHERE ctid = ANY (ARRAY(
         SELECT g.ctid FROM ${this.#groups} AS g JOIN unnest($1::text[], $2::text[], $3::text[]) AS own(grp, pattern, regex) USING (grp, pattern)
         FOR UPDATE OF g SKIP LOCKED))`,
      patternArrays(patterns),
      RESERVED,
    );
  }

  /**
   * Moves jobs from the lanes of patterns that no node has affirmed for `abandonedMs` into those of `patterns` which match
   * their events: jobs that are ready, deferred ones that are due, and claimed ones whose lease has run out, which the next
   * look then finds. Returns the lane of each.
   */
  async adopt(patterns: readonly GroupPattern[], abandonedMs: number): Promise<string[]> {
    const rows = await this.#storage.query<{ lane: string }>(
      `WITH own AS MATERIALIZED (
         SELECT *, ${groupLaneSql("grp", "pattern")} AS lane FROM unnest($1::text[], $2::text[], $3::text[]) AS own(grp, pattern, regex)),
       abandoned AS MATERIALIZED (
         SELECT prefix || ${groupLaneSql("grp", "pattern")} AS lane, grp, prefix FROM ${this.#groups} CROSS JOIN (VALUES (''), ('${SOLO_PREFIX}')) AS kind(prefix)
         WHERE grp = ANY ($1::text[]) AND (grp, pattern) NOT IN (SELECT grp, pattern FROM own)
           AND seen_at < statement_timestamp() - $4::float8 * interval '1 ms'),
       matching AS MATERIALIZED (
         SELECT place, prefix || own.lane AS new_lane
         FROM abandoned CROSS JOIN LATERAL (
           SELECT ctid AS place, id FROM ${this.#ready} WHERE lane = abandoned.lane ORDER BY id LIMIT ${ADOPTION_REACH}) AS r
         JOIN ${this.#jobs} AS j USING (id) ${OWN_OF_JOB_SQL} LIMIT ${UPKEEP_BATCH}),
       waiting AS MATERIALIZED (
         SELECT r.ctid AS place, id, fence, new_lane FROM ${this.#ready} AS r JOIN matching ON r.ctid = place FOR UPDATE OF r SKIP LOCKED),
       matching_due AS MATERIALIZED (
         SELECT place, prefix || own.lane AS new_lane
         FROM abandoned CROSS JOIN LATERAL (
           SELECT ctid AS place, event FROM ${this.#deferred} WHERE lane = abandoned.lane AND run_at < statement_timestamp()
           ORDER BY run_at, id LIMIT ${ADOPTION_REACH}) AS j
         ${OWN_OF_JOB_SQL} LIMIT ${UPKEEP_BATCH}),
       due AS MATERIALIZED (
         SELECT d.ctid AS place, new_lane FROM ${this.#deferred} AS d JOIN matching_due ON d.ctid = place FOR UPDATE OF d SKIP LOCKED),
       gone AS (DELETE FROM ${this.#deferred} AS d USING due WHERE d.ctid = due.place RETURNING d.*, due.new_lane),
       lapsed AS MATERIALIZED (
         SELECT j.id, prefix || own.lane AS new_lane
         FROM ${this.#claims} CROSS JOIN LATERAL unnest(ids, fences) AS held(id, fence) JOIN ${this.#jobs} AS j USING (id, fence) JOIN abandoned USING (lane) ${OWN_OF_JOB_SQL}
         WHERE lease_until < statement_timestamp() LIMIT ${UPKEEP_BATCH} FOR UPDATE OF j SKIP LOCKED),
       moved AS (
         UPDATE ${this.#jobs} AS j SET lane = new_lane FROM (SELECT id, new_lane FROM waiting UNION ALL SELECT id, new_lane FROM lapsed) AS found WHERE j.id = found.id),
       taken AS (DELETE FROM ${this.#ready} AS r USING waiting WHERE r.ctid = waiting.place),
       added AS (
         INSERT INTO ${this.#jobs} (id, lane, queue, grp, event, payload, headers, attempt, history, created_at, fence)
         SELECT id, new_lane, queue, grp, event, payload, headers, attempt, history, created_at, fence FROM gone RETURNING lane, id, fence),
       listed AS (INSERT INTO ${this.#ready} (lane, id, fence) SELECT new_lane, id, fence FROM waiting UNION ALL SELECT lane, id, fence FROM added)
       SELECT new_lane AS lane FROM waiting UNION ALL SELECT new_lane FROM due UNION ALL SELECT new_lane FROM lapsed`,
      [...patternArrays(patterns), abandonedMs],
      RESERVED,
    );
    return rows.map((row) => row.lane);
  }
}

/** The one of `own` by which the group of a job `j` takes its event. */
const OWN_OF_JOB_SQL = `CROSS JOIN LATERAL (
  SELECT own.lane FROM own WHERE own.grp = abandoned.grp AND (own.pattern = j.event OR j.event ~ own.regex) ORDER BY own.lane LIMIT 1) AS own`;

function patternArrays(patterns: readonly GroupPattern[]): unknown[][] {
  return [patterns.map((each) => each.group), patterns.map((each) => each.pattern), patterns.map((each) => each.regex)];
}
