import pg from "pg";
import type { Row, Statement } from "../contract/storage.js";
import { mayBeOutdated } from "./connection-errors.js";
import type { PreparedStatement, PreparedStatements } from "./prepared-statements.js";

/** What became of statements that were sent together. */
export interface BatchOutcome {
  /** Of those that were carried out, in order. */
  readonly results: readonly SqlResult[];
  /** Of the one after them; undefined where there is none. None after it was executed. */
  readonly error: unknown;
  /** It failed as one does that was prepared before something changed on the server; parsed anew, it may not. */
  readonly outdated: boolean;
}

export function onlyResult({ results, error }: BatchOutcome): SqlResult {
  if (error !== undefined) throw error;
  return results[0]!;
}

export interface SqlResult {
  readonly rows: Row[];
  /** Command tag: `SELECT`, `COMMIT`, … */
  readonly command: string;
}

interface Sendable {
  readonly text: string;
  readonly values: readonly unknown[];
  /** Null: parsed anew. */
  readonly prepared: PreparedStatement | null;
  /** Sent without its text. */
  byName: boolean;
}

/** What the driver does beyond what its types say. */
interface Wire extends pg.Connection {
  flush(): void;
  sync(): void;
}

interface Builder extends pg.Result {
  addFields(fields: readonly unknown[]): void;
  parseRow(values: readonly unknown[]): Row;
  addRow(row: Row): void;
  addCommandComplete(message: unknown): void;
}

/** Results of the driver take the parsers of its `types`, which no code here replaces. */
const newResult = (): Builder => new pg.Result("", pg.types) as Builder;
const toWireValue = (pg as unknown as { utils: { prepareValue(value: unknown): unknown } }).utils.prepareValue;

/**
 * Statements in one round trip, for `client.query`: messages of the extended protocol with one Sync behind them all, so
 * that Postgres skips what comes after a statement that fails (PostgreSQL manual, "Pipelining" in the frontend protocol).
 */
export class StatementBatch implements pg.Submittable {
  readonly #statements: readonly Sendable[];
  readonly #next: StatementBatch | null;
  #sent = false;
  readonly #results: SqlResult[] = [];
  #current = newResult();
  #unreadable: unknown;
  #resolve!: (outcome: BatchOutcome) => void;
  /** Of each statement, and of all but the last at once. */
  onResult: () => void = () => undefined;
  /** The answer is there, or will not come. Before it returns, the client must be given `next`: both answers may be in one read. */
  onEnd: () => void = () => undefined;
  readonly outcome = new Promise<BatchOutcome>((resolve) => (this.#resolve = resolve));

  /**
   * `kept`: of the connection, null where it cannot keep any. `next` is sent along. Throws where a value cannot be sent;
   * nothing has been sent then.
   */
  constructor(statements: readonly Statement[], kept: PreparedStatements | null, next: StatementBatch | null = null) {
    this.#next = next;
    this.#statements = statements.map(({ sql, params, prepare }) => ({
      text: sql,
      values: params.map(toWireValue),
      prepared: prepare === true && kept !== null ? kept.of(sql) : null,
      byName: false,
    }));
  }

  submit(connection: pg.Connection): void {
    if (this.#sent) return;
    const wire = connection as Wire;
    wire.stream.cork();
    this.#send(wire);
    if (this.#next !== null) this.#next.#send(wire);
    wire.stream.uncork();
  }

  #send(wire: Wire): void {
    this.#sent = true;
    for (const [index, statement] of this.#statements.entries()) {
      const { text, values, prepared } = statement;
      // Else the server keeps the answers to those before until the last one, which may take long, is done.
      if (index > 0 && index === this.#statements.length - 1) wire.flush();
      const name = prepared?.name ?? "";
      statement.byName = prepared?.ready === true;
      if (!statement.byName) {
        // It may be there: a statement that failed in its execution was prepared all the same.
        if (prepared !== null) wire.close({ type: "S", name }, true);
        wire.parse({ name, text, types: [] }, true);
      }
      wire.bind({ statement: name, values: values as unknown[] } as unknown as pg.BindConfig, true);
      wire.describe({ type: "P", name: "" } as unknown as pg.MessageConfig, true);
      wire.execute({} as pg.ExecuteConfig, true);
    }
    wire.sync();
  }

  handleRowDescription({ fields }: { readonly fields: readonly unknown[] }): void {
    this.#current.addFields(fields);
  }

  handleDataRow({ fields }: { readonly fields: readonly unknown[] }): void {
    try {
      this.#current.addRow(this.#current.parseRow(fields));
    } catch (error) {
      this.#unreadable ??= error;
    }
  }

  handleCommandComplete(message: unknown): void {
    this.#current.addCommandComplete(message);
    this.#statementDone();
  }

  handleEmptyQuery(): void {
    this.#statementDone();
  }

  /** Also where the connection is lost. */
  handleError(error: unknown): void {
    this.#end(error);
  }

  handleReadyForQuery(): void {
    this.#end(this.#unreadable);
  }

  #end(error: unknown): void {
    const failed = this.#statements[this.#results.length];
    this.#resolve({ results: this.#results, error, outdated: failed?.byName === true && mayBeOutdated(error) });
    this.onEnd();
  }

  #statementDone(): void {
    const { prepared } = this.#statements[this.#results.length]!;
    if (prepared !== null) prepared.ready = true;
    this.#results.push(this.#current);
    this.#current = newResult();
    this.onResult();
  }
}
