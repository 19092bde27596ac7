import { createHash, randomBytes } from "node:crypto";
import pg from "pg";
import { createLogger } from "#mesh/logger.js";
import { migrate } from "#mesh/storage/migrations.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { MIGRATIONS } from "#mesh/storage/schema.js";
import { until } from "./wait.js";

export interface TestDatabase {
  readonly url: string;
  /** Fails, naming them, where connections to the database were left open: close what uses it first. */
  drop(): Promise<void>;
}

/** Marks what belongs to one run of the tests: databases by their names, processes by their environment. */
export const RUN_ID = process.env["TEST_RUN_ID"] ?? randomBytes(4).toString("hex");

const TEMPLATE_LOCK = "7205759403792793601";

/** The server under test: the runner's, else `DATABASE_URL`. */
export function serverUrl(): string {
  const url = process.env["TEST_DATABASE_URL"] ?? process.env["DATABASE_URL"];
  if (url === undefined) throw new Error("set DATABASE_URL, or run the tests by `npm test`");
  return url;
}

/** A database of one's own in which all migrations have run, cloned from a template in a few milliseconds. */
export async function createDatabase(): Promise<TestDatabase> {
  return withAdmin(async (admin) => createFrom(admin, await ensureTemplate(admin)));
}

/** A database of one's own with nothing in it. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  return withAdmin((admin) => createFrom(admin, "template0"));
}

/** Databases of this run that nobody has dropped, with what is connected to them, as lines; they are dropped. */
export async function leftDatabases(): Promise<string[]> {
  return withAdmin(async (admin) => {
    const { rows } = await admin.query<{ name: string }>("SELECT datname AS name FROM pg_database WHERE starts_with(datname, $1)", [
      `mesh_test_${RUN_ID}_`,
    ]);
    const lines: string[] = [];
    for (const { name } of rows) {
      lines.push([`database ${name}`, ...(await connectionsTo(admin, name))].join("; "));
      await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    }
    return lines;
  });
}

export async function withAdmin<T>(work: (admin: pg.Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client({ connectionString: serverUrl(), application_name: "mesh-test-admin" });
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}

async function createFrom(admin: pg.Client, template: string): Promise<TestDatabase> {
  const name = `mesh_test_${RUN_ID}_${randomBytes(6).toString("hex")}`;
  await admin.query(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  return { url: urlOf(name), drop: () => withAdmin((client) => dropDatabase(client, name)) };
}

function urlOf(database: string): string {
  const url = new URL(serverUrl());
  url.pathname = `/${database}`;
  return url.href;
}

/** The template's name tells its migrations, so that an outdated one is never used. It gets that name when complete. */
async function ensureTemplate(admin: pg.Client): Promise<string> {
  const name = `mesh_template_${migrationsHash()}`;
  if (await exists(admin, name)) return name;
  await admin.query("SELECT pg_advisory_lock($1)", [TEMPLATE_LOCK]);
  try {
    if (!(await exists(admin, name))) await buildTemplate(admin, name);
  } finally {
    await admin.query("SELECT pg_advisory_unlock($1)", [TEMPLATE_LOCK]);
  }
  return name;
}

async function buildTemplate(admin: pg.Client, name: string): Promise<void> {
  const draft = `${name}_draft`;
  await admin.query(`DROP DATABASE IF EXISTS ${draft} WITH (FORCE)`);
  await admin.query(`CREATE DATABASE ${draft} TEMPLATE template0`);
  const storage = await openPostgres({ url: urlOf(draft), log: createLogger({ level: "error" }) });
  await migrate(storage);
  await storage.close();
  await until(async () => (await connectionsTo(admin, draft)).length === 0, { message: "the template has no connections" });
  await admin.query(`ALTER DATABASE ${draft} RENAME TO ${name}`);
}

function migrationsHash(): string {
  const text = MIGRATIONS.map(({ id, name, statements }) => [id, name, ...statements((table) => table)].join("\n")).join("\n");
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

async function exists(admin: pg.Client, database: string): Promise<boolean> {
  const { rowCount } = await admin.query("SELECT FROM pg_database WHERE datname = $1", [database]);
  return rowCount === 1;
}

async function dropDatabase(admin: pg.Client, name: string): Promise<void> {
  const leaked = await leftOver(admin, name);
  await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  if (leaked.length > 0) {
    throw new Error(`connections left open (hooks of t.after run first come, first served): ${leaked.join("; ")}`);
  }
}

/** A backend ends a moment after its client has gone. */
async function leftOver(admin: pg.Client, name: string): Promise<string[]> {
  let open: string[] = [];
  const gone = async (): Promise<boolean> => (open = await connectionsTo(admin, name)).length === 0;
  await until(gone, { timeoutMs: 3_000 }).catch(() => undefined);
  return open;
}

/** What is connected to a database, as text for an error. */
async function connectionsTo(admin: pg.Client, database: string): Promise<string[]> {
  const { rows } = await admin.query<{ label: string }>(
    `SELECT format('pid %s (%s, %s): %s', pid, application_name, state, query) AS label
     FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'`,
    [database],
  );
  return rows.map((row) => row.label);
}
