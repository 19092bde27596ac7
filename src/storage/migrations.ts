import type { Session, Storage } from "../contract/storage.js";
import { MeshConfigurationError } from "../errors.js";
import { sqlState } from "./connection-errors.js";
import { advisoryKey } from "./names.js";
import { MIGRATIONS, type Migration } from "./schema.js";

const LEDGER = "_chimpbase_mesh_migrations";

/**
 * Brings the schema up to date, all or nothing. Any number of nodes may call this at once: one works, the others wait
 * and find it done. Steps that a newer version of the package has added are left alone.
 */
export async function migrate(storage: Storage): Promise<void> {
  // The usual boot: nothing to do, no lock taken, and no right to create anything needed.
  if ((await pendingOf(storage, storage)).length === 0) return;
  try {
    await storage.transaction(async (tx) => {
      await tx.query("SELECT pg_advisory_xact_lock($1)", [advisoryKey("migrations", storage.schema)]);
      for (const step of await pendingOf(tx, storage)) await apply(tx, storage, step);
    });
  } catch (error) {
    throw sqlState(error) === "42501" ? missingRight(storage, error) : error;
  }
}

async function pendingOf(session: Session, storage: Storage): Promise<readonly Migration[]> {
  const ledger = storage.table(LEDGER);
  const [found] = await session.query<{ exists: boolean }>("SELECT to_regclass($1) IS NOT NULL AS exists", [ledger]);
  if (found?.exists !== true) return MIGRATIONS;
  const rows = await session.query<{ id: number }>(`SELECT id FROM ${ledger}`);
  const applied = new Set(rows.map((row) => row.id));
  return MIGRATIONS.filter((step) => !applied.has(step.id));
}

async function apply(session: Session, storage: Storage, step: Migration): Promise<void> {
  const ledger = storage.table(LEDGER);
  await session.query(
    `CREATE TABLE IF NOT EXISTS ${ledger} (
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL,
      applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())`,
  );
  for (const statement of step.statements((name) => storage.table(name))) await session.query(statement);
  await session.query(`INSERT INTO ${ledger} (id, name) VALUES ($1, $2)`, [step.id, step.name]);
}

function missingRight(storage: Storage, cause: unknown): MeshConfigurationError {
  return new MeshConfigurationError(
    `the tables of the mesh are missing or outdated in schema "${storage.schema}", and this role may not change them; ` +
      `grant it CREATE on the schema, or start one node with a role that owns it`,
    { cause },
  );
}
