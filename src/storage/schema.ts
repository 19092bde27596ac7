import { functions } from "./functions.js";

type TableName = (name: string) => string;

/** One step of the schema. Steps are append-only: a released step never changes. */
export interface Migration {
  readonly id: number;
  readonly name: string;
  /** `table` quotes and qualifies a name of this mesh's schema. */
  readonly statements: (table: TableName) => readonly string[];
}

const registryTables = (table: TableName): string[] => [
  `CREATE TABLE ${table("_chimpbase_mesh_nodes")} (
    node_id TEXT PRIMARY KEY,
    advertised_url TEXT,
    metadata_json TEXT NOT NULL DEFAULT '{}',
    services_json TEXT NOT NULL DEFAULT '[]',
    started_at_ms BIGINT NOT NULL,
    last_heartbeat_ms BIGINT NOT NULL)`,
];

const eventTables = (table: TableName): string[] => [
  `CREATE TABLE ${table("_chimpbase_mesh_events")} (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
    node_id TEXT NOT NULL,
    names TEXT[],
    events TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())`,
  `ALTER TABLE ${table("_chimpbase_mesh_events")} ALTER COLUMN events SET STORAGE EXTERNAL`,
  `CREATE INDEX _chimpbase_mesh_events_order ON ${table("_chimpbase_mesh_events")} (xid, id)`,
  `CREATE TABLE ${table("_chimpbase_mesh_groups")} (
    grp TEXT NOT NULL,
    pattern TEXT NOT NULL,
    regex TEXT,
    began_at TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (grp, pattern))`,
  `CREATE INDEX _chimpbase_mesh_groups_pattern ON ${table("_chimpbase_mesh_groups")} (pattern)`,
];

/** Autovacuum of tables whose rows live for seconds. */
const MUCH_CHANGED = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0";

const jobTables = (table: TableName): string[] => [
  `CREATE SEQUENCE ${table("_chimpbase_mesh_job_id")} AS BIGINT CACHE 1`,
  `CREATE TABLE ${table("_chimpbase_mesh_jobs")} (
    id BIGINT PRIMARY KEY,
    lane TEXT NOT NULL,
    queue TEXT NOT NULL,
    grp TEXT,
    event TEXT,
    payload TEXT NOT NULL,
    headers TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    history TEXT NOT NULL DEFAULT '[]',
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    fence INTEGER NOT NULL DEFAULT 0)
    WITH (fillfactor = 90, ${MUCH_CHANGED})`,
  `CREATE TABLE ${table("_chimpbase_mesh_ready")} (
    lane TEXT NOT NULL,
    id BIGINT NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, id))
    WITH (${MUCH_CHANGED})`,
  `CREATE TABLE ${table("_chimpbase_mesh_claims")} (
    token UUID PRIMARY KEY,
    holder TEXT NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    ids BIGINT[] NOT NULL,
    fences INTEGER[] NOT NULL)
    WITH (fillfactor = 50, ${MUCH_CHANGED})`,
];

const deferredTables = (table: TableName): string[] => [
  `CREATE TABLE ${table("_chimpbase_mesh_deferred")} (
    id BIGINT PRIMARY KEY,
    run_at TIMESTAMPTZ NOT NULL,
    lane TEXT NOT NULL,
    queue TEXT NOT NULL,
    grp TEXT,
    event TEXT,
    payload TEXT NOT NULL,
    headers TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    history TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0)`,
  `CREATE INDEX _chimpbase_mesh_deferred_due ON ${table("_chimpbase_mesh_deferred")} (lane, run_at, id)`,
];

const deadLetterTables = (table: TableName): string[] => [
  `CREATE TABLE ${table("_chimpbase_mesh_dead_letters")} (
    id BIGINT PRIMARY KEY,
    lane TEXT NOT NULL,
    queue TEXT NOT NULL,
    grp TEXT,
    event TEXT,
    payload TEXT NOT NULL,
    headers TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    error TEXT NOT NULL,
    history TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    failed_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())`,
  `CREATE INDEX _chimpbase_mesh_dead_letters_queue ON ${table("_chimpbase_mesh_dead_letters")} (queue, failed_at)`,
];

const cronTables = (table: TableName): string[] => [
  `CREATE TABLE ${table("_chimpbase_mesh_crons")} (
    name TEXT PRIMARY KEY,
    schedule TEXT NOT NULL,
    timezone TEXT NOT NULL,
    last_tick_ms BIGINT NOT NULL,
    job_id BIGINT)`,
];

const apiKeyTables = (table: TableName): string[] => [
  `CREATE TABLE ${table("_chimpbase_mesh_api_keys")} (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    expires_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ)`,
];

/**
 * All tables of the mesh.
 *
 * - `jobs`: all that can run or runs. Written once and deleted once; touched in between only where a holder lets go. `attempt`
 *   counts the attempts that have ended. `fence` grows each time that a holder lets go of the job or loses it, so that
 *   whoever names an older one changes nothing.
 * - `ready`: which jobs nobody holds. `lane` is the claim key: the queue for a plain job, group and pattern for a balanced
 *   event. A claim deletes these narrow rows in place of changing the wide ones, whose indexes it would have to write.
 * - `claims`: one row for all jobs of a claim, with their lease. A job is in `ready`, or in a claim with its fence.
 * - `deferred`: delayed jobs and retries, moved to `jobs` when due, so that the claim's index holds only what can run.
 * - `events`: the broadcast log, one row a commit. `xid` orders catch-up: sequence order is not commit order. `names` are those
 *   of its events, so that no node reads what it has no handler for; null: not known. Not compressed: that took four fifths
 *   of the time of a write, and every reader unpacks it again.
 */
export const MIGRATIONS: readonly Migration[] = [
  {
    id: 1,
    name: "base",
    statements: (table) =>
      [registryTables, eventTables, jobTables, deferredTables, deadLetterTables, cronTables, apiKeyTables, functions].flatMap((parts) => parts(table)),
  },
];
