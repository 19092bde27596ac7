import { Started, type Context } from "@chimpbase/mesh";

/** Base of services that keep tables of their own: creates them before the node takes its first call. */
export abstract class Tables {
  protected abstract readonly ddl: readonly string[];

  @Started()
  async createTables(ctx: Context): Promise<void> {
    await ctx.transaction(async (tx) => {
      // Several nodes may start at once, and CREATE TABLE IF NOT EXISTS alone would race.
      await tx.db.query("SELECT pg_advisory_xact_lock(hashtext(?1))", ["shop-tables"]);
      for (const statement of this.ddl) await tx.db.query(statement);
    });
  }
}
