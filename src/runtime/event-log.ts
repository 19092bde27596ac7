import type { Row, Storage } from "../contract/storage.js";
import { msSql, PAGE_ROWS } from "../storage/functions.js";

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

/** Which events a reader wants. Of rows that hold none of them it gets no more than that they are there. */
export interface Interest {
  readonly names: readonly string[];
  /** For Postgres, of further names; null: none. */
  readonly regex: string | null;
}

export interface LogPage {
  /** In order of their writing. */
  readonly rows: readonly LogRow[];
  /** Something was committed, of interest or not. */
  readonly grown: boolean;
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
  readonly wanted: boolean;
  readonly events: string | null;
}

/** Of events that come with a page. */
const PAGE_BYTES = 1024 * 1024;
const GC_ROWS = 5_000;
const NO_EVENTS = "[]";
export const EVERYTHING: Interest = { names: [], regex: "" };

/** The broadcast log's SQL, on the reading side. */
export class EventLog {
  readonly #storage: Storage;
  readonly #interest: () => Interest;
  readonly #pageSql: string;
  readonly #table: string;

  /** `interest` returns the same object until it wants more. */
  constructor(storage: Storage, interest: () => Interest) {
    this.#storage = storage;
    this.#interest = interest;
    this.#table = storage.table("_chimpbase_mesh_events");
    this.#pageSql = `SELECT * FROM ${storage.table("_chimpbase_mesh_read_events")}($1, $2, $3, $4, $5, $6, $7, $8)`;
  }

  /** The position of a reader that wants nothing of what has been committed so far. */
  async end(): Promise<LogPosition> {
    const [row] = await this.#storage.query<PageRow>(`SELECT pg_current_snapshot()::text AS snapshot, ${msSql("clock_timestamp()")} AS now_ms`);
    return positionOf(row!.snapshot, row!.now_ms);
  }

  /**
   * What was committed since `from`, as far as `until` shows it (null: all). A server that has crashed may hand out
   * transaction ids again that never reached the disk; `suspectCrash` therefore adds rows written since, whatever their
   * transaction.
   */
  async read(from: LogPosition, until: LogPosition | null, suspectCrash: boolean): Promise<LogPage> {
    const params = [from.nextXid, from.open, suspectCrash ? from.takenAtMs : null, until?.nextXid ?? null, until?.open ?? [], PAGE_BYTES];
    const found = await this.#page(params);
    const { snapshot, now_ms: nowMs, id } = found[0]!;
    const rows = id === null ? [] : found;
    const end = until ?? positionOf(snapshot, nowMs);
    const last = lastOfFullPage(rows, from.nextXid);
    const wanted = rows.filter((row) => row.wanted).map(toLogRow);
    return { rows: wanted, grown: rows.length > 0, next: last === null ? end : cut(end, last, from), more: last !== null, nowMs };
  }

  /** A subscription that came while the read waited for its turn may want what it left out: the second leaves out nothing. */
  async #page(params: readonly unknown[]): Promise<PageRow[]> {
    const interest = this.#interest();
    const found = await this.#storage.query<PageRow>(this.#pageSql, [...params, interest.names, interest.regex], { prepare: true });
    const complete = found.every((row) => row.id === null || row.wanted);
    if (complete || this.#interest() === interest) return found;
    return this.#storage.query<PageRow>(this.#pageSql, [...params, EVERYTHING.names, EVERYTHING.regex], { prepare: true });
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

const PAST_RETENTION = "created_at < clock_timestamp() - $3::float8 * interval '1 ms'";

/** Where the oldest row is not past the retention, as at most looks, one row is all that is read. */
function gcSql(table: string): string {
  return `
    WITH oldest AS MATERIALIZED (SELECT created_at FROM ${table} ORDER BY id LIMIT 1), gate AS MATERIALIZED (
      SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS open FROM oldest
      WHERE ${PAST_RETENTION}
    ), gone AS (
      DELETE FROM ${table} WHERE (SELECT open FROM gate)
        AND id IN (SELECT id FROM ${table} ORDER BY id LIMIT $2::int)
        AND ${PAST_RETENTION}
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
