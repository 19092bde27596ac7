import type { Session, Storage, Transaction } from "../contract/storage.js";
import { MeshConfigurationError } from "../errors.js";
import { sqlState } from "./connection-errors.js";
import { advisoryKey } from "./names.js";
import { MIGRATIONS, type Migration } from "./schema.js";

const LEDGER = "_chimpbase_mesh_migrations";
/** Another node at work, or a step over large tables. */
const AS_LONG_AS_IT_TAKES = { answerTimeoutMs: Infinity };

/**
 * Brings the schema up to date, all or nothing. Any number of nodes may call this at once: one works, the others wait
 * and find it done. Steps that a newer version of the package has added are left alone.
 */
export async function migrate(storage: Storage): Promise<void> {
  // The usual boot: nothing to do, no lock taken, and no right to create anything needed.
  if ((await ledgerExists(storage)) && (await pendingOf(storage, storage)).length === 0) return;
  try {
    await storage.transaction((tx) => migrateLocked(tx, storage));
  } catch (error) {
    throw sqlState(error) === "42501" ? missingRight(storage, error) : error;
  }
}

async function ledgerExists(storage: Storage): Promise<boolean> {
  const [found] = await storage.query<{ exists: boolean }>("SELECT to_regclass($1) IS NOT NULL AS exists", [storage.table(LEDGER)]);
  return found?.exists === true;
}

async function migrateLocked(tx: Transaction, storage: Storage): Promise<void> {
  await tx.query("SELECT pg_advisory_xact_lock($1)", [advisoryKey("migrations", storage.schema)], AS_LONG_AS_IT_TAKES);
  // Not to_regclass again: after the wait for the lock it may still answer from this connection's cache.
  await tx.query(
    `CREATE TABLE IF NOT EXISTS ${storage.table(LEDGER)} (
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL,
      applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())`,
  );
  for (const step of await pendingOf(tx, storage)) await apply(tx, storage, step);
}

async function pendingOf(session: Session, storage: Storage): Promise<readonly Migration[]> {
  const rows = await session.query<{ id: number }>(`SELECT id FROM ${storage.table(LEDGER)}`);
  const applied = new Set(rows.map((row) => row.id));
  return MIGRATIONS.filter((step) => !applied.has(step.id));
}

async function apply(tx: Transaction, storage: Storage, step: Migration): Promise<void> {
  for (const statement of step.statements((name) => storage.table(name))) await tx.query(statement, [], AS_LONG_AS_IT_TAKES);
  await tx.query(`INSERT INTO ${storage.table(LEDGER)} (id, name) VALUES ($1, $2)`, [step.id, step.name]);
}

function missingRight(storage: Storage, cause: unknown): MeshConfigurationError {
  return new MeshConfigurationError(
    `the tables of the mesh are missing or outdated in schema "${storage.schema}", and this role may not change them; ` +
      `grant it CREATE on the schema, or start one node with a role that owns it`,
    { cause },
  );
}
