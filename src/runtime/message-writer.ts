import type { Session, Storage } from "../contract/storage.js";
import { encodeRow } from "./event-record.js";
import { balancedQueueSql, groupLaneSql, queueLane } from "./lanes.js";
import type { Encoded, EncodedEvent, EncodedJob } from "./outgoing.js";

/** What one write did. */
export interface Written {
  /** For each message in turn: how many balanced groups got the event, or the job's id. */
  readonly results: readonly (number | string)[];
  /** The broadcast log has grown. */
  readonly events: boolean;
  /** Lanes with jobs that can run now. */
  readonly lanes: readonly string[];
  /** Lanes with delayed jobs: ms until the first of these is due. */
  readonly delayed: ReadonlyMap<string, number>;
}

interface Target {
  readonly name: string;
  readonly lane: string;
}

interface WriteResult {
  readonly targets: readonly Target[] | null;
  readonly ready_ids: readonly string[] | null;
  readonly delayed_ids: readonly string[] | null;
}

/** Quoted names; `jobId` as an argument of nextval. */
interface Tables {
  readonly events: string;
  readonly groups: string;
  readonly jobs: string;
  readonly ready: string;
  readonly deferred: string;
  readonly jobId: string;
}

/** Messages of one write, by where they go. */
interface Sorted {
  readonly logged: readonly string[];
  readonly balanced: readonly EncodedEvent[];
  readonly ready: readonly EncodedJob[];
  readonly delayed: readonly EncodedJob[];
}

/** The SQL that writes events and jobs: all of a batch in one statement, so in one round trip and one commit. */
export class MessageWriter {
  readonly #nodeId: string;
  readonly #tables: Tables;

  constructor(storage: Storage, nodeId: string) {
    this.#nodeId = nodeId;
    this.#tables = {
      events: storage.table("_chimpbase_mesh_events"),
      groups: storage.table("_chimpbase_mesh_groups"),
      jobs: storage.table("_chimpbase_mesh_jobs"),
      ready: storage.table("_chimpbase_mesh_ready"),
      deferred: storage.table("_chimpbase_mesh_deferred"),
      jobId: `'${storage.table("_chimpbase_mesh_job_id").replaceAll("'", "''")}'::regclass`,
    };
  }

  /** In the order given; through a transaction or, on the pool, as a commit of its own. */
  async write(session: Session, messages: readonly Encoded[]): Promise<Written> {
    const sorted = sort(messages);
    const { sql, params } = statement(this.#tables, this.#nodeId, sorted);
    const [row] = await session.query<WriteResult>(sql, params);
    return toWritten(messages, sorted, row!);
  }
}

function sort(messages: readonly Encoded[]): Sorted {
  const sorted = { logged: [] as string[], balanced: [] as EncodedEvent[], ready: [] as EncodedJob[], delayed: [] as EncodedJob[] };
  for (const message of messages) {
    if (message.kind === "job") (message.delayMs > 0 ? sorted.delayed : sorted.ready).push(message);
    else {
      if (message.record !== null) sorted.logged.push(message.record);
      if (message.job !== null) sorted.balanced.push(message);
    }
  }
  return sorted;
}

/** Only the parts that the batch needs: planning the whole costs more than writing a few rows. */
function statement(tables: Tables, nodeId: string, { logged, balanced, ready, delayed }: Sorted): { sql: string; params: unknown[] } {
  const params: unknown[] = [];
  const param = (value: unknown, type: string): string => `$${params.push(value)}::${type}`;
  const parts: string[] = [];
  const selected: string[] = [];
  if (logged.length > 0) parts.push(logSql(tables, param(nodeId, "text"), param(encodeRow(logged), "text")));
  if (balanced.length > 0) {
    const columns = [balanced.map(({ name }) => name), balanced.map(({ job }) => job!.payload), balanced.map(({ job }) => job!.headers)];
    parts.push(balancedSql(tables, columns.map((column) => param(column, "text[]"))));
    selected.push("(SELECT json_agg(targets) FROM targets) AS targets");
  }
  if (ready.length > 0) {
    parts.push(readySql(tables, jobColumns(ready).map((column) => param(column, "text[]"))));
    selected.push("(SELECT json_agg(id::text ORDER BY n) FROM ready) AS ready_ids");
  }
  if (delayed.length > 0) {
    const columns = jobColumns(delayed).map((column) => param(column, "text[]"));
    parts.push(delayedSql(tables, [...columns, param(delayed.map(({ delayMs }) => delayMs), "float8[]")]));
    selected.push("(SELECT json_agg(id::text ORDER BY n) FROM delayed) AS delayed_ids");
  }
  return { sql: `WITH ${parts.join(",\n")}\nSELECT ${selected.join(", ")}`, params };
}

function jobColumns(jobs: readonly EncodedJob[]): string[][] {
  return [jobs.map(({ queue }) => queueLane(queue)), jobs.map(({ queue }) => queue), jobs.map(({ payload }) => payload), jobs.map(({ headers }) => headers)];
}

function logSql(tables: Tables, nodeId: string, row: string): string {
  return `logged AS (INSERT INTO ${tables.events} (node_id, events) VALUES (${nodeId}, ${row}))`;
}

/**
 * Groups are looked up in the same statement, once for each name: what is in the table is what gets the event. A group
 * that several of its patterns match gets one job, in the lane of the first of them.
 */
function balancedSql(tables: Tables, [names, payloads, headers]: readonly string[]): string {
  return `targets AS MATERIALIZED (
      SELECT name, grp, ${groupLaneSql("grp", 'min(pattern COLLATE "C")')} AS lane
      FROM (SELECT DISTINCT name FROM unnest(${names}) AS name) AS names
        JOIN ${tables.groups} ON pattern = name OR name ~ regex
      GROUP BY name, grp
    ), balanced AS (
      INSERT INTO ${tables.jobs} (id, lane, queue, grp, event, payload, headers)
      SELECT nextval(${tables.jobId}), lane, ${balancedQueueSql("name")}, grp, name, payload, headers FROM (
        SELECT lane, grp, name, payload, headers
        FROM unnest(${names}, ${payloads}, ${headers}) WITH ORDINALITY AS event (name, payload, headers, n) JOIN targets USING (name)
        ORDER BY n
      ) AS ordered RETURNING lane, id
    ), balanced_ready AS (INSERT INTO ${tables.ready} (lane, id) SELECT lane, id FROM balanced)`;
}

function readySql(tables: Tables, [lanes, queues, payloads, headers]: readonly string[]): string {
  return `ready AS MATERIALIZED (
      SELECT nextval(${tables.jobId}) AS id, job.*
      FROM unnest(${lanes}, ${queues}, ${payloads}, ${headers}) WITH ORDINALITY AS job (lane, queue, payload, headers, n)
    ), ready_written AS (
      INSERT INTO ${tables.jobs} (id, lane, queue, payload, headers) SELECT id, lane, queue, payload, headers FROM ready
    ), ready_listed AS (INSERT INTO ${tables.ready} (lane, id) SELECT lane, id FROM ready)`;
}

function delayedSql(tables: Tables, [lanes, queues, payloads, headers, delays]: readonly string[]): string {
  return `delayed AS MATERIALIZED (
      SELECT nextval(${tables.jobId}) AS id, job.*
      FROM unnest(${lanes}, ${queues}, ${payloads}, ${headers}, ${delays}) WITH ORDINALITY AS job (lane, queue, payload, headers, delay_ms, n)
    ), delayed_written AS (
      INSERT INTO ${tables.deferred} (id, run_at, lane, queue, payload, headers, attempt, history, created_at)
      SELECT id, clock_timestamp() + delay_ms * interval '1 ms', lane, queue, payload, headers, 0, '[]', clock_timestamp() FROM delayed)`;
}

function toWritten(messages: readonly Encoded[], { logged, ready, delayed }: Sorted, row: WriteResult): Written {
  const lanes = new Set(ready.map(({ queue }) => queueLane(queue)));
  const groups = new Map<string, number>();
  for (const { name, lane } of row.targets ?? []) {
    groups.set(name, (groups.get(name) ?? 0) + 1);
    lanes.add(lane);
  }
  let nextReady = 0;
  let nextDelayed = 0;
  const results = messages.map((message) => {
    if (message.kind === "job") return message.delayMs > 0 ? row.delayed_ids![nextDelayed++]! : row.ready_ids![nextReady++]!;
    return message.job === null ? 0 : (groups.get(message.name) ?? 0);
  });
  return { results, events: logged.length > 0, lanes: [...lanes], delayed: firstDue(delayed) };
}

function firstDue(jobs: readonly EncodedJob[]): Map<string, number> {
  const due = new Map<string, number>();
  for (const { queue, delayMs } of jobs) {
    const lane = queueLane(queue);
    due.set(lane, Math.min(delayMs, due.get(lane) ?? Infinity));
  }
  return due;
}
