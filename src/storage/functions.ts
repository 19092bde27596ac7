import { balancedQueueSql, groupLaneSql } from "./lanes.js";

type Name = (name: string) => string;

/** A group takes an event for which none was expected. */
export const UNEXPECTED_GROUP = "CM001";
/** The job is no longer held as the caller says. */
export const NOT_HELD = "CM002";

/**
 * Statements that run for each call are functions: Postgres keeps the plan of a function, and planning one of these anew took
 * longer than its execution. Prepared statements keep it too, but there are none behind a pooler. A plan that was made while the
 * tables were empty, as those of a queue mostly are, is kept when they fill up: the settings of the function hold while it
 * is planned, and each condition names its rows, so that whatever a table looks like, they are found by index.
 */
const BY_INDEX = "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off";

export function functions(name: Name): readonly string[] {
  return [writeFunction(name), claimFunction(name), completeFunction(name), beginJobFunction(name), readEventsFunction(name)];
}

/**
 * Writes a batch of events and jobs, in the order given. Groups are looked up in the same call, once for each name: what is in
 * the table is what gets the event. A group that several of its patterns match gets one job, in the lane of the one that a node
 * began last to serve: the others may be those of nodes that are gone.
 */
function writeFunction(name: Name): string {
  const nextId = `nextval(${jobIds(name)})`;
  return `CREATE FUNCTION ${name("_chimpbase_mesh_write")}(
    emitter TEXT, log_names TEXT[], log_row TEXT, ungrouped TEXT[], event_names TEXT[], event_payloads TEXT[], event_headers TEXT[],
    job_lanes TEXT[], job_queues TEXT[], job_payloads TEXT[], job_headers TEXT[], job_delays FLOAT8[], OUT targets JSON, OUT job_ids JSON)
  LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET jit = off AS ${quoted(`
  BEGIN
    IF log_row IS NOT NULL THEN
      INSERT INTO ${name("_chimpbase_mesh_events")} (node_id, names, events) VALUES (emitter, log_names, log_row);
    END IF;
    IF ungrouped IS NOT NULL THEN
      PERFORM FROM unnest(ungrouped) AS event(name) JOIN ${name("_chimpbase_mesh_groups")} ON pattern = event.name OR event.name ~ regex LIMIT 1;
      IF FOUND THEN
        RAISE EXCEPTION 'a group takes an event that none was expected to take' USING ERRCODE = '${UNEXPECTED_GROUP}';
      END IF;
    END IF;
    IF event_names IS NOT NULL THEN
      WITH target AS MATERIALIZED (
        SELECT event.name, grp, ${groupLaneSql("grp", '(array_agg(pattern ORDER BY began_at DESC, pattern COLLATE "C"))[1]')} AS lane
        FROM (SELECT DISTINCT unnest(event_names) AS name) AS event
          JOIN ${name("_chimpbase_mesh_groups")} ON pattern = event.name OR event.name ~ regex
        GROUP BY event.name, grp
      ), balanced AS (
        INSERT INTO ${name("_chimpbase_mesh_jobs")} (id, lane, queue, grp, event, payload, headers)
        SELECT ${nextId}, lane, ${balancedQueueSql("name")}, grp, name, payload, headers FROM (
          SELECT lane, grp, name, payload, headers
          FROM unnest(event_names, event_payloads, event_headers) WITH ORDINALITY AS event(name, payload, headers, n) JOIN target USING (name)
          ORDER BY n
        ) AS ordered RETURNING lane, id
      ), listed AS (INSERT INTO ${name("_chimpbase_mesh_ready")} (lane, id) SELECT lane, id FROM balanced)
      SELECT json_agg(target) INTO targets FROM target;
    END IF;
    IF job_queues IS NOT NULL THEN
      WITH job AS MATERIALIZED (
        SELECT ${nextId} AS id, given.*
        FROM unnest(job_lanes, job_queues, job_payloads, job_headers, job_delays) WITH ORDINALITY AS given(lane, queue, payload, headers, delay_ms, n)
      ), written AS (
        INSERT INTO ${name("_chimpbase_mesh_jobs")} (id, lane, queue, payload, headers)
        SELECT id, lane, queue, payload, headers FROM job WHERE delay_ms = 0
      ), listed AS (
        INSERT INTO ${name("_chimpbase_mesh_ready")} (lane, id) SELECT lane, id FROM job WHERE delay_ms = 0
      ), deferred AS (
        INSERT INTO ${name("_chimpbase_mesh_deferred")} (id, run_at, lane, queue, payload, headers, attempt, history, created_at)
        SELECT id, clock_timestamp() + delay_ms * interval '1 ms', lane, queue, payload, headers, 0, '[]', clock_timestamp() FROM job WHERE delay_ms > 0)
      SELECT json_agg(id::text ORDER BY n) INTO job_ids FROM job;
    END IF;
  END`)}`;
}

/**
 * Oldest ready jobs of each lane, from an id on: their rows in `ready` go, and one row says who holds them all. The picked rows are
 * found again through arrays: a join would be planned on the guess that LIMIT takes a tenth of the table, and a plain IN may run
 * its subquery again and lock more. The commit does not wait for the disk: a claim lost in a crash of Postgres only returns its jobs.
 * The last row is no job: it tells when they were claimed, how long that took, and which id was the newest then.
 */
function claimFunction(name: Name): string {
  const jobs = name("_chimpbase_mesh_jobs");
  const ready = name("_chimpbase_mesh_ready");
  const claims = name("_chimpbase_mesh_claims");
  return `CREATE FUNCTION ${name("_chimpbase_mesh_claim")}(
    claim_lanes TEXT[], claim_quotas INT[], claim_starts BIGINT[], claim_token UUID, claim_holder TEXT, lease_ms FLOAT8, ended_tokens UUID[])
  RETURNS TABLE (id BIGINT, fence INT, lane TEXT, queue TEXT, "group" TEXT, event TEXT, payload TEXT, headers TEXT, attempt INT, history TEXT,
    "createdAtMs" FLOAT8, "claimedAtMs" FLOAT8, "tookMs" FLOAT8, newest BIGINT)
  LANGUAGE plpgsql ${BY_INDEX} AS ${quoted(`
  #variable_conflict use_column
  BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY WITH picked AS MATERIALIZED (
      SELECT found.* FROM unnest(claim_lanes, claim_quotas, claim_starts) AS want(lane, quota, start) CROSS JOIN LATERAL (
        SELECT ctid AS place, id, fence FROM ${ready} WHERE lane = want.lane AND id >= want.start
        ORDER BY id LIMIT want.quota FOR UPDATE SKIP LOCKED) AS found
    ), taken AS (
      DELETE FROM ${ready} WHERE ctid = ANY (ARRAY(SELECT place FROM picked))
    ), claimed AS (
      INSERT INTO ${claims} (token, holder, lease_until, ids, fences)
      SELECT claim_token, claim_holder, clock_timestamp() + lease_ms * interval '1 millisecond', array_agg(id), array_agg(fence)
      FROM picked HAVING count(*) > 0
    ), ended AS (${endedClaimsSql(claims, jobs, "token = ANY (ended_tokens)")})
    SELECT id, fence, lane, queue, grp, event, payload, headers, attempt + 1, history, floor(${msSql("created_at")}), NULL::float8, NULL::float8, NULL::bigint
    FROM ${jobs} WHERE id = ANY (ARRAY(SELECT id FROM picked));
    "claimedAtMs" := ${msSql("clock_timestamp()")};
    "tookMs" := ${msSql("clock_timestamp() - statement_timestamp()")};
    newest := coalesce(pg_sequence_last_value(${jobIds(name)}), 0);
    RETURN NEXT;
  END`)}`;
}

/**
 * Deletes those of the jobs that are held as the caller says, and returns their ids. They are found at once and then joined: a
 * nested loop, which Postgres prefers for the ten rows that it guesses, would search the array anew for each of them.
 */
function completeFunction(name: Name): string {
  return `CREATE FUNCTION ${name("_chimpbase_mesh_complete")}(job_ids BIGINT[], job_fences INT[], job_tokens UUID[]) RETURNS TABLE (id BIGINT)
  LANGUAGE plpgsql ${BY_INDEX} SET enable_nestloop = off AS ${quoted(`
  #variable_conflict use_column
  BEGIN
    RETURN QUERY WITH held AS MATERIALIZED (
      SELECT id, fence FROM unnest(job_ids, job_fences, job_tokens) AS done(id, fence, claim)
      WHERE claim = ANY (ARRAY(SELECT token FROM ${name("_chimpbase_mesh_claims")} WHERE token = ANY (job_tokens)))
    )
    DELETE FROM ${name("_chimpbase_mesh_jobs")} AS j USING held
    WHERE j.id = ANY (job_ids) AND j.id = held.id AND j.fence = held.fence RETURNING j.id;
  END`)}`;
}

/** First statement of a job's transaction: completes the job, or fails, and limits how long the transaction may idle. */
function beginJobFunction(name: Name): string {
  return `CREATE FUNCTION ${name("_chimpbase_mesh_begin_job")}(job_id BIGINT, job_fence INT, job_token UUID, idle_limit_ms INT) RETURNS VOID
  LANGUAGE plpgsql ${BY_INDEX} AS ${quoted(`
  BEGIN
    DELETE FROM ${name("_chimpbase_mesh_jobs")} WHERE id = job_id AND fence = job_fence
      AND EXISTS (SELECT FROM ${name("_chimpbase_mesh_claims")} WHERE token = job_token);
    IF NOT FOUND THEN
      RAISE EXCEPTION 'job % is not held under fence % and claim %', job_id, job_fence, job_token USING ERRCODE = '${NOT_HELD}';
    END IF;
    PERFORM set_config('idle_in_transaction_session_timeout', idle_limit_ms::text, true);
  END`)}`;
}

function jobIds(name: Name): string {
  return `${quoted(name("_chimpbase_mesh_job_id"))}::regclass`;
}

/** Not between dollar signs, which the name of a schema may contain. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

export const PAGE_ROWS = 500;

/**
 * One page of the broadcast log. Its main part is a range of the index (xid, id), cut between transactions; those that were
 * open before come in full. Bodies come along where they are wanted, up to a limit by the size that Postgres knows without
 * reading them. One row without an id where there is none.
 */
function readEventsFunction(name: Name): string {
  const select = `SELECT id, xid, node_id, created_at, events, octet_length(events) AS bytes,
        names IS NULL OR names && wanted_names OR EXISTS (SELECT FROM unnest(names) AS each WHERE each ~ wanted_regex) AS wanted
      FROM ${name("_chimpbase_mesh_events")} WHERE (until_xid IS NULL OR (xid < until_xid AND xid <> ALL (until_open)))`;
  return `CREATE FUNCTION ${name("_chimpbase_mesh_read_events")}(
    from_xid XID8, from_open XID8[], written_after_ms FLOAT8, until_xid XID8, until_open XID8[], page_bytes BIGINT, wanted_names TEXT[], wanted_regex TEXT)
  RETURNS TABLE (snapshot TEXT, now_ms FLOAT8, id BIGINT, xid TEXT, node_id TEXT, emitted_at_ms FLOAT8, bytes INT, wanted BOOLEAN, events TEXT)
  LANGUAGE plpgsql ${BY_INDEX} AS ${quoted(`
  #variable_conflict use_column
  BEGIN
    RETURN QUERY WITH page AS MATERIALIZED (
      (${select} AND xid >= from_xid ORDER BY xid FETCH FIRST ${PAGE_ROWS} ROWS WITH TIES)
      UNION ALL ${select} AND xid = ANY (from_open)
      UNION ALL ${select} AND written_after_ms IS NOT NULL AND xid < from_xid AND xid <> ALL (from_open)
        AND created_at > to_timestamp(written_after_ms / 1000)
    ), sized AS (
      SELECT *, sum(bytes) FILTER (WHERE wanted) OVER (ORDER BY id) - bytes AS before FROM page
    )
    SELECT pg_current_snapshot()::text, ${msSql("clock_timestamp()")}, id, xid::text, node_id, ${msSql("created_at")}, bytes, wanted,
      CASE WHEN wanted AND before < page_bytes THEN events END
    FROM (VALUES (1)) AS always LEFT JOIN sized ON true ORDER BY id;
  END`)}`;
}

/**
 * Deletes those of the claims that `condition` names of which no job is left. That is looked up rather than believed: a
 * job whose claim has gone would never run again. Claims that others are at work on are left to them.
 */
export function endedClaimsSql(claims: string, jobs: string, condition: string): string {
  return `DELETE FROM ${claims} WHERE token = ANY (ARRAY(
    SELECT token FROM ${claims} AS c WHERE ${condition} AND NOT EXISTS (
      SELECT FROM ${jobs} AS j WHERE j.id = ANY (c.ids) AND j.fence = c.fences[array_position(c.ids, j.id)])
    FOR UPDATE SKIP LOCKED))`;
}

/** A timestamp in ms since the epoch, or an interval in ms. */
export function msSql(timestamp: string): string {
  return `(extract(epoch from ${timestamp}) * 1000)::float8`;
}
