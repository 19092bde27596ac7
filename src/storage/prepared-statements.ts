import { createHash } from "node:crypto";

/** One that the server keeps for a connection. */
export interface PreparedStatement {
  readonly name: string;
  /** The server has said that it has it. */
  ready: boolean;
}

/**
 * What the server keeps prepared for one connection, by its text. A name is that of one text everywhere: where sessions are
 * shared without a sign of it, another client's statement must not be taken for this one.
 */
export class PreparedStatements {
  readonly #bySql = new Map<string, PreparedStatement>();

  of(sql: string): PreparedStatement {
    const known = this.#bySql.get(sql);
    if (known !== undefined) return known;
    const added = { name: `mesh_${createHash("sha1").update(sql).digest("hex")}`, ready: false };
    this.#bySql.set(sql, added);
    return added;
  }

  /** Somebody had the server drop them all. */
  forget(): void {
    this.#bySql.clear();
  }
}
