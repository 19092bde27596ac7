import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import pg from "pg";
import { createLogger } from "#mesh/logger.js";
import { migrate } from "#mesh/storage/migrations.js";
import { openPostgres } from "#mesh/storage/postgres.js";

const PAGE = resolve(import.meta.dirname, "../../../docs/security.md");
const APP = "mesh_app";
const OWNER = "mesh_owner";

export interface Role {
  readonly name: string;
  readonly url: string;
}

export interface LeastPrivilege {
  /** Of the role that runs nodes, on the database that was given. */
  readonly url: string;
  readonly app: Role;
  /** Owns the tables, where they were not there before. */
  readonly owner: Role;
  /** Lets the application's role do what a test's own tables need, e.g. `INSERT, SELECT ON effects`. */
  grant(rights: string): Promise<void>;
  /** Roles belong to the server: call it once the database is dropped. */
  drop(): Promise<void>;
}

/**
 * Makes the two roles of docs/security.md by the SQL of that page, under names of their own, in the database of
 * `adminUrl`, which a superuser must own; migrates it as the page says, unless that has been done.
 */
export async function applyLeastPrivilege(adminUrl: string): Promise<LeastPrivilege> {
  const [setUp, grants] = (await sqlOfPage()) as [string, string];
  const mark = randomBytes(6).toString("hex");
  const password = randomBytes(12).toString("hex");
  const database = new URL(adminUrl).pathname.slice(1);
  const own = (sql: string): string =>
    sql
      .replaceAll(/ON DATABASE mesh\b/g, `ON DATABASE ${database}`)
      .replaceAll(/\b(mesh_owner|mesh_app)\b/g, `$1_${mark}`)
      .replaceAll(/PASSWORD '[^']*'/g, `PASSWORD '${password}'`);
  const role = (name: string): Role => ({ name: `${name}_${mark}`, url: withUser(adminUrl, `${name}_${mark}`, password) });
  const [app, owner] = [role(APP), role(OWNER)];
  await run(adminUrl, own(setUp));
  const migrated = await isMigrated(adminUrl);
  if (!migrated) await migrateAs(owner.url);
  await run(migrated ? adminUrl : owner.url, own(grants));
  return {
    url: app.url, app, owner,
    grant: (rights) => run(adminUrl, `GRANT ${rights} TO ${app.name}`),
    drop: () => run(withDatabase(adminUrl, "postgres"), `DROP ROLE ${app.name}; DROP ROLE ${owner.name}`),
  };
}

/** The blocks of SQL on the page, in order. */
export async function sqlOfPage(): Promise<string[]> {
  const page = await readFile(PAGE, "utf8");
  return Array.from(page.matchAll(/^```sql\n(.*?)^```$/gms), ([, sql]) => sql!);
}

async function isMigrated(url: string): Promise<boolean> {
  const client = await connect(url);
  const { rows } = await client.query<{ there: boolean }>("SELECT to_regclass('public._chimpbase_mesh_migrations') IS NOT NULL AS there").finally(() => client.end());
  return rows[0]!.there;
}

async function migrateAs(url: string): Promise<void> {
  const storage = await openPostgres({ url, log: createLogger({ level: "silent" }) });
  await migrate(storage).finally(() => storage.close());
}

async function run(url: string, sql: string): Promise<void> {
  const client = await connect(url);
  await client.query(sql).finally(() => client.end());
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: "mesh-test-roles" });
  await client.connect();
  return client;
}

function withUser(text: string, username: string, password: string): string {
  return Object.assign(new URL(text), { username, password }).href;
}

function withDatabase(text: string, database: string): string {
  return Object.assign(new URL(text), { pathname: `/${database}` }).href;
}
