import { createHash } from "node:crypto";

/** One that the server keeps for a connection. */
export interface PreparedStatement {
  readonly name: string;
  /** The server has said that it has it. */
  ready: boolean;
}

/** Of one connection. A text beyond them is parsed each time. */
const MAX_STATEMENTS = 100;

/**
 * What the server keeps prepared for one connection, by its text. A name is that of one text everywhere: where sessions are
 * shared without a sign of it, another client's statement must not be taken for this one.
 */
export class PreparedStatements {
  readonly #bySql = new Map<string, PreparedStatement>();

  of(sql: string): PreparedStatement | null {
    const known = this.#bySql.get(sql);
    if (known !== undefined) return known;
    if (this.#bySql.size === MAX_STATEMENTS) return null;
    const added = { name: `mesh_${createHash("sha1").update(sql).digest("hex")}`, ready: false };
    this.#bySql.set(sql, added);
    return added;
  }

  /** Each is parsed anew at its next use, whether the server still has it or not. */
  forget(): void {
    this.#bySql.clear();
  }
}
