import type { Row, Storage } from "../contract/storage.js";

/**
 * What a reader has seen of the log, as Postgres sees it: every committed row whose transaction is older than `nextXid`
 * and not one of `open`. Rows that a later read adds are exactly those, so that neither a late commit nor a transaction
 * left open for hours can hide an event or hold others back. Transaction ids are decimal strings (xid8).
 */
export interface LogPosition {
  readonly nextXid: string;
  /** Transactions that were under way, and may commit rows yet. */
  readonly open: readonly string[];
  /** When Postgres was asked. Database clock, ms since the epoch, as all times here. */
  readonly takenAtMs: number;
  /** Up to here nothing has been left out: `takenAtMs`, or earlier where a long log is read in pages. */
  readonly completeAtMs: number;
}

/** One row of the log: the events of one commit. */
export interface LogRow {
  readonly id: string;
  readonly nodeId: string;
  readonly emittedAtMs: number;
  readonly bytes: number;
  /** JSON text; null until `fillBodies`, where the page had no room for it. */
  events: string | null;
}

export interface LogPage {
  /** In order of their writing. */
  readonly rows: readonly LogRow[];
  readonly next: LogPosition;
  /** There may be more than the page could hold. */
  readonly more: boolean;
  readonly nowMs: number;
}

interface PageRow extends Row {
  readonly snapshot: string;
  readonly now_ms: number;
  readonly id: string | null;
  readonly xid: string;
  readonly node_id: string;
  readonly emitted_at_ms: number;
  readonly bytes: number;
  readonly events: string | null;
}

/** Rows of one page, and bytes of events that come with it. */
const PAGE_ROWS = 500;
const PAGE_BYTES = 1024 * 1024;
const GC_ROWS = 5_000;
const NO_EVENTS = "[]";

const MS = (timestamp: string): string => `(extract(epoch from ${timestamp}) * 1000)::float8`;

/** The broadcast log's SQL, on the reading side. */
export class EventLog {
  readonly #storage: Storage;
  readonly #pageSql: string;
  readonly #table: string;

  constructor(storage: Storage) {
    this.#storage = storage;
    this.#table = storage.table("_chimpbase_mesh_events");
    this.#pageSql = pageSql(this.#table);
  }

  /** The position of a reader that wants nothing of what has been committed so far. */
  async end(): Promise<LogPosition> {
    const [row] = await this.#storage.query<PageRow>(`SELECT pg_current_snapshot()::text AS snapshot, ${MS("clock_timestamp()")} AS now_ms`);
    return positionOf(row!.snapshot, row!.now_ms);
  }

  /**
   * What was committed since `from`, as far as `until` shows it (null: all). A server that has crashed may hand out
   * transaction ids again that never reached the disk; `suspectCrash` therefore adds rows written since, whatever their
   * transaction.
   */
  async read(from: LogPosition, until: LogPosition | null, suspectCrash: boolean): Promise<LogPage> {
    const params = [from.nextXid, from.open, suspectCrash ? from.takenAtMs : null, PAGE_BYTES, until?.nextXid ?? null, until?.open ?? []];
    const found = await this.#storage.query<PageRow>(this.#pageSql, params);
    const { snapshot, now_ms: nowMs, id } = found[0]!;
    const rows = id === null ? [] : found;
    const end = until ?? positionOf(snapshot, nowMs);
    const last = lastOfFullPage(rows, from.nextXid);
    return { rows: rows.map(toLogRow), next: last === null ? end : cut(end, last, from), more: last !== null, nowMs };
  }

  /** Fetches what the first of `rows` lack, as much as fits a page. Returns how many are past the retention and gone. */
  async fillBodies(rows: readonly LogRow[]): Promise<number> {
    const wanted = firstPage(rows);
    const sql = `SELECT id, events FROM ${this.#table} WHERE id = ANY($1::bigint[])`;
    const found = await this.#storage.query<{ id: string; events: string }>(sql, [wanted.map((row) => row.id)]);
    const bodies = new Map(found.map((row) => [row.id, row.events]));
    for (const row of wanted) row.events = bodies.get(row.id) ?? NO_EVENTS;
    return wanted.length - bodies.size;
  }

  /**
   * Deletes rows past the retention; one node at a time, others do nothing. `seen` is the snapshot that the last call
   * returned (null: none): a row that it does not show was committed since, however long ago it was written, and stays
   * until the next call.
   */
  async collect(retentionMs: number, seen: string | null): Promise<string> {
    for (;;) {
      const [row] = await this.#storage.query<{ deleted: number; snapshot: string }>(gcSql(this.#table), [
        `${this.#storage.schema}/_chimpbase_mesh_events`, GC_ROWS, retentionMs, seen,
      ]);
      if (row!.deleted < GC_ROWS) return row!.snapshot;
    }
  }
}

/**
 * The page's main part is a range of the index (xid, id), cut between transactions; those that were open before come in
 * full. Bodies come along up to a limit, by the size that Postgres knows without reading them.
 */
function pageSql(table: string): string {
  const select = `SELECT id, xid, node_id, created_at, events, octet_length(events) AS bytes FROM ${table}
      WHERE ($5::xid8 IS NULL OR (xid < $5::xid8 AND xid <> ALL($6::xid8[])))`;
  return `
    WITH page AS MATERIALIZED (
      (${select} AND xid >= $1::xid8 ORDER BY xid FETCH FIRST ${PAGE_ROWS} ROWS WITH TIES)
      UNION ALL ${select} AND xid = ANY($2::xid8[])
      UNION ALL ${select} AND $3::float8 IS NOT NULL AND xid < $1::xid8 AND xid <> ALL($2::xid8[]) AND created_at > to_timestamp($3::float8 / 1000)
    ), sized AS (
      SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM page
    )
    SELECT pg_current_snapshot()::text AS snapshot, ${MS("clock_timestamp()")} AS now_ms, id, xid::text AS xid, node_id,
      ${MS("created_at")} AS emitted_at_ms, bytes, CASE WHEN before < $4::bigint THEN events END AS events
    FROM (VALUES (1)) AS always LEFT JOIN sized ON true ORDER BY id`;
}

function gcSql(table: string): string {
  return `
    WITH gate AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS open), gone AS (
      DELETE FROM ${table} WHERE (SELECT open FROM gate)
        AND id IN (SELECT id FROM ${table} ORDER BY id LIMIT $2::int)
        AND created_at < clock_timestamp() - $3::float8 * interval '1 ms'
        AND pg_visible_in_snapshot(xid, $4::pg_snapshot)
      RETURNING 1
    ) SELECT count(*)::int AS deleted, pg_current_snapshot()::text AS snapshot FROM gone`;
}

/** `xmin:xmax:xip,xip,…` */
function positionOf(snapshot: string, atMs: number): LogPosition {
  const [, nextXid, open] = snapshot.split(":") as [string, string, string];
  return { nextXid, open: open === "" ? [] : open.split(","), takenAtMs: atMs, completeAtMs: atMs };
}

/** The first row whatever its size, and those after it up to the limit. */
function firstPage(rows: readonly LogRow[]): LogRow[] {
  let bytes = 0;
  const end = rows.findIndex((row, index) => (bytes += row.bytes) > PAGE_BYTES && index > 0);
  return rows.slice(0, end < 0 ? rows.length : end);
}

function toLogRow(row: PageRow): LogRow {
  return { id: row.id!, nodeId: row.node_id, emittedAtMs: Math.floor(row.emitted_at_ms), bytes: row.bytes, events: row.events };
}

/** Youngest transaction of a page that was cut off, else null. */
function lastOfFullPage(rows: readonly PageRow[], nextXid: string): bigint | null {
  if (rows.length < PAGE_ROWS) return null;
  const floor = BigInt(nextXid);
  const range = rows.map((row) => BigInt(row.xid)).filter((xid) => xid >= floor);
  return range.length < PAGE_ROWS ? null : range.reduce((a, b) => (a > b ? a : b));
}

/** `end`, as far as a page that stops after transaction `last` has got from `start`. */
function cut(end: LogPosition, last: bigint, start: LogPosition): LogPosition {
  const open = end.open.filter((xid) => BigInt(xid) <= last);
  return { nextXid: String(last + 1n), open, takenAtMs: end.takenAtMs, completeAtMs: start.completeAtMs };
}
