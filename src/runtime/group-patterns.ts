import type { Storage } from "../contract/storage.js";
import { groupLaneSql } from "../storage/lanes.js";
import { SOLO_PREFIX } from "./lane.js";

export interface GroupPattern {
  readonly group: string;
  readonly pattern: string;
  /** Null for a plain name. */
  readonly regex: string | null;
}

/** What an adoption has moved. */
export interface Adoption {
  /** The lane of each. */
  readonly lanes: readonly string[];
  /** There may be more. */
  readonly full: boolean;
}

/** Most jobs of each kind that one adoption moves. */
const BATCH = 500;
/** So many of a lane, the oldest, are looked at for those that can be adopted: what nobody can adopt may be many more. */
const REACH = 10_000;

/** The statements on groups and their patterns, and those that bring jobs from the lane of one pattern into that of another. */
export class GroupPatterns {
  readonly #storage: Storage;
  readonly #groups: string;
  readonly #jobs: string;
  readonly #ready: string;
  readonly #claims: string;
  readonly #deferred: string;

  constructor(storage: Storage) {
    this.#storage = storage;
    this.#groups = storage.table("_chimpbase_mesh_groups");
    this.#jobs = storage.table("_chimpbase_mesh_jobs");
    this.#ready = storage.table("_chimpbase_mesh_ready");
    this.#claims = storage.table("_chimpbase_mesh_claims");
    this.#deferred = storage.table("_chimpbase_mesh_deferred");
  }

  /**
   * Remembers groups for ever: from now on they get their events, also those emitted while none of their nodes is up. In
   * one order on all nodes: those that boot at the same time would deadlock on each other's rows otherwise.
   */
  async remember(patterns: readonly GroupPattern[]): Promise<void> {
    await this.#storage.query(
      `INSERT INTO ${this.#groups} AS g (grp, pattern, regex)
       SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[]) AS given(grp, pattern, regex) ORDER BY grp, pattern
       ON CONFLICT (grp, pattern) DO UPDATE SET regex = EXCLUDED.regex WHERE g.regex IS DISTINCT FROM EXCLUDED.regex`,
      patternArrays(patterns),
    );
  }

  /** Says that a node serves these patterns from now on. Those that another node is just saying it of are left to that one. */
  async begin(patterns: readonly GroupPattern[]): Promise<void> {
    await this.#storage.query(
      `UPDATE ${this.#groups} SET began_at = statement_timestamp() WHERE ctid = ANY (ARRAY(
         SELECT g.ctid FROM ${this.#groups} AS g JOIN unnest($1::text[], $2::text[], $3::text[]) AS own(grp, pattern, regex) USING (grp, pattern)
         FOR UPDATE OF g SKIP LOCKED))`,
      patternArrays(patterns),
    );
  }

  /**
   * Moves jobs that have waited for `waitedMs` in the lanes of other patterns of the groups into those of `patterns`, where these
   * match their events: jobs that are ready, deferred ones that are due, and claimed ones whose lease has run out, which the
   * next look then finds. Whoever else serves such a lane skips what is moved, and jobs that somebody holds are not.
   */
  async adopt(patterns: readonly GroupPattern[], waitedMs: number): Promise<Adoption> {
    const rows = await this.#storage.query<{ kind: string; lane: string }>(
      `WITH own AS MATERIALIZED (
         SELECT *, ${groupLaneSql("grp", "pattern")} AS lane FROM unnest($1::text[], $2::text[], $3::text[]) AS own(grp, pattern, regex)),
       latest AS MATERIALIZED (SELECT statement_timestamp() - $4::float8 * interval '1 ms' AS at),
       others AS MATERIALIZED (
         SELECT prefix || ${groupLaneSql("grp", "pattern")} AS lane, grp, prefix FROM ${this.#groups} CROSS JOIN (VALUES (''), ('${SOLO_PREFIX}')) AS kind(prefix)
         WHERE grp = ANY ($1::text[]) AND (grp, pattern) NOT IN (SELECT grp, pattern FROM own)),
       matching AS MATERIALIZED (
         SELECT place, prefix || own.lane AS new_lane
         FROM others CROSS JOIN LATERAL (
           SELECT ctid AS place, id FROM ${this.#ready} WHERE lane = others.lane ORDER BY id LIMIT ${REACH}) AS r
         JOIN ${this.#jobs} AS j USING (id) ${OWN_OF_JOB_SQL} WHERE j.created_at < (SELECT at FROM latest) LIMIT ${BATCH}),
       waiting AS MATERIALIZED (
         SELECT r.ctid AS place, id, fence, new_lane FROM ${this.#ready} AS r JOIN matching ON r.ctid = place FOR UPDATE OF r SKIP LOCKED),
       matching_due AS MATERIALIZED (
         SELECT place, prefix || own.lane AS new_lane
         FROM others CROSS JOIN LATERAL (
           SELECT ctid AS place, event FROM ${this.#deferred} WHERE lane = others.lane AND run_at < (SELECT at FROM latest)
           ORDER BY run_at, id LIMIT ${REACH}) AS j
         ${OWN_OF_JOB_SQL} LIMIT ${BATCH}),
       due AS MATERIALIZED (
         SELECT d.ctid AS place, new_lane FROM ${this.#deferred} AS d JOIN matching_due ON d.ctid = place FOR UPDATE OF d SKIP LOCKED),
       gone AS (DELETE FROM ${this.#deferred} AS d USING due WHERE d.ctid = due.place RETURNING d.*, due.new_lane),
       lapsed AS MATERIALIZED (
         SELECT j.id, prefix || own.lane AS new_lane
         FROM ${this.#claims} CROSS JOIN LATERAL unnest(ids, fences) AS held(id, fence) JOIN ${this.#jobs} AS j USING (id, fence) JOIN others USING (lane) ${OWN_OF_JOB_SQL}
         WHERE lease_until < (SELECT at FROM latest) LIMIT ${BATCH} FOR UPDATE OF j SKIP LOCKED),
       moved AS (
         UPDATE ${this.#jobs} AS j SET lane = new_lane FROM (SELECT id, new_lane FROM waiting UNION ALL SELECT id, new_lane FROM lapsed) AS found WHERE j.id = found.id),
       taken AS (DELETE FROM ${this.#ready} AS r USING waiting WHERE r.ctid = waiting.place),
       added AS (
         INSERT INTO ${this.#jobs} (id, lane, queue, grp, event, payload, headers, attempt, history, created_at, fence)
         SELECT id, new_lane, queue, grp, event, payload, headers, attempt, history, created_at, fence FROM gone RETURNING lane, id, fence),
       listed AS (INSERT INTO ${this.#ready} (lane, id, fence) SELECT new_lane, id, fence FROM waiting UNION ALL SELECT lane, id, fence FROM added)
       SELECT 'ready' AS kind, new_lane AS lane FROM waiting UNION ALL SELECT 'due', new_lane FROM due UNION ALL SELECT 'lapsed', new_lane FROM lapsed`,
      [...patternArrays(patterns), waitedMs],
    );
    const full = ["ready", "due", "lapsed"].some((kind) => rows.filter((row) => row.kind === kind).length === BATCH);
    return { lanes: rows.map(({ lane }) => lane), full };
  }
}

/** The one of `own` by which the group of a job `j` takes its event. */
const OWN_OF_JOB_SQL = `CROSS JOIN LATERAL (
  SELECT own.lane FROM own WHERE own.grp = others.grp AND (own.pattern = j.event OR j.event ~ own.regex) ORDER BY own.lane LIMIT 1) AS own`;

function patternArrays(patterns: readonly GroupPattern[]): unknown[][] {
  return [patterns.map((each) => each.group), patterns.map((each) => each.pattern), patterns.map((each) => each.regex)];
}
