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
    events TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())`,
  `CREATE INDEX _chimpbase_mesh_events_order ON ${table("_chimpbase_mesh_events")} (xid, id)`,
  `CREATE TABLE ${table("_chimpbase_mesh_groups")} (
    grp TEXT NOT NULL,
    pattern TEXT NOT NULL,
    regex TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (grp, pattern))`,
  `CREATE INDEX _chimpbase_mesh_groups_pattern ON ${table("_chimpbase_mesh_groups")} (pattern)`,
];

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
    token UUID,
    holder TEXT,
    lease_until TIMESTAMPTZ)
    WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
          autovacuum_vacuum_cost_delay = 0)`,
  // An expression, so that a claim ordered by it can use no other index than its lane's.
  `CREATE INDEX _chimpbase_mesh_jobs_ready ON ${table("_chimpbase_mesh_jobs")} (lane, (id + 0)) WHERE token IS NULL`,
  `CREATE INDEX _chimpbase_mesh_jobs_claimed ON ${table("_chimpbase_mesh_jobs")} (lane, (id + 0)) WHERE token IS NOT NULL`,
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
    created_at TIMESTAMPTZ NOT NULL)`,
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
    last_tick_ms BIGINT NOT NULL)`,
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
 * - `jobs`: ready and claimed jobs. `lane` is the claim key: the queue for a plain job, group and pattern for a balanced
 *   event. `token` is the fence: null while ready, new at each claim. Lease columns are in no index, so that extending
 *   a lease is a HOT update.
 * - `deferred`: delayed jobs and retries, moved to `jobs` when due, so that the claim's index holds only what can run.
 * - `events`: the broadcast log, one row a commit. `xid` orders catch-up: sequence order is not commit order.
 */
export const MIGRATIONS: readonly Migration[] = [
  {
    id: 1,
    name: "base",
    statements: (table) =>
      [registryTables, eventTables, jobTables, deferredTables, deadLetterTables, cronTables, apiKeyTables].flatMap((tables) => tables(table)),
  },
];
