/** A row as the driver returns it: `BIGINT` and `NUMERIC` as strings, `json`/`jsonb` parsed, timestamps as `Date`. */
export type Row = Record<string, unknown>;

/** One SQL command with `$1` placeholders. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
  /** As in `QueryOptions`. */
  readonly answerTimeoutMs?: number | undefined;
  /** As in `QueryOptions`. */
  readonly prepare?: boolean | undefined;
}

/** What became of statements that were sent together. */
export interface QueriedAll {
  /** Rows of those that were carried out, in order. */
  readonly rows: readonly Row[][];
  /** Of the one after them; undefined where all were. None after it was executed. */
  readonly error: unknown;
}

export interface QueryOptions {
  /** Longest wait for a pooled connection, in ms. Default: the storage's own limit (5000). Past it: `MeshOverloadedError`. */
  readonly acquireTimeoutMs?: number;
  /**
   * A statement that the node's standing in the cluster hangs on: it goes before all others, and may use one connection
   * beyond `poolSize`. For short ones that wait for no lock. A transaction never is. Default false.
   */
  readonly reserved?: boolean;
  /**
   * Longest wait for the answer, in ms. Default 30000; `Infinity`: as long as the connection stands. Past it the statement
   * is cancelled and its connection closed, so that one that has gone silent holds nobody up: code `DATABASE_UNAVAILABLE`,
   * and the statement may have been executed. Given to a transaction, it also bounds BEGIN, COMMIT and savepoints.
   */
  readonly answerTimeoutMs?: number;
  /**
   * The server keeps the statement parsed and planned for each connection that uses it again, where no pooler shares connections.
   * For one command whose text is always the same, whose plan suits any size of the tables, and which a rollback undoes: where
   * it fails as if what it names had changed, it may be executed a second time. Default false.
   */
  readonly prepare?: boolean;
}

/**
 * Where a piece of code sends its SQL: the pool, one transaction, or a transaction that opens on first use. Internal
 * SQL uses `$1` placeholders; `?1` is rewritten only on the way in from `ctx.db`.
 */
export interface Session {
  query<T = Row>(sql: string, params?: readonly unknown[], options?: QueryOptions): Promise<T[]>;
  /** Commits when `fn` resolves, rolls back when it rejects. Inside a transaction: a savepoint. */
  transaction<T>(fn: (tx: Transaction) => Promise<T>, options?: QueryOptions): Promise<T>;
  /**
   * The transaction that effects decided on in this session (emits, enqueues) must join, or null where they commit
   * on their own. A lazy session opens its transaction here.
   */
  joinTransaction(): Promise<Transaction | null>;
}

/** An open transaction. Used after its end, it throws `MeshError` with code `TRANSACTION_CLOSED`. */
export interface Transaction extends Session {
  /**
   * Runs `fn` once after the outermost transaction has committed; never after a rollback, of a savepoint either.
   * What `fn` throws is logged: the commit stands.
   */
  afterCommit(fn: () => void | Promise<void>): void;
}

/** A transaction whose end is decided by its owner. Exactly one of `commit` and `rollback` must be called. */
export interface OwnedTransaction extends Transaction {
  /** In one round trip. Rejects only where nothing of it can have been sent, or the connection is lost. */
  queryAll(statements: readonly Statement[]): Promise<QueriedAll>;
  /** Resolves after the commit is acknowledged. An unclear outcome (connection lost while waiting) rejects with code `COMMIT_UNKNOWN`. */
  commit(): Promise<void>;
  /** Never rejects; destroys the connection where it cannot be rolled back. */
  rollback(): Promise<void>;
  /**
   * Touches the connection, whatever nested transaction is open, so that the server does not end an idle transaction.
   * Never rejects: false where the transaction has ended or its connection is gone.
   */
  keepAlive(): Promise<boolean>;
}

/** One connection of its own that listens. It reconnects by itself, with back-off, until closed. */
export interface Listener {
  close(): Promise<void>;
}

export interface ListenerHandlers {
  /** One NOTIFY on one of the channels. Called in order of arrival. Must not throw. */
  onNotify(channel: string, payload: string): void;
  /** LISTEN is in force: at first, and after each reconnect. Whatever was missed must be read from tables now. */
  onConnected(): void;
  /** The connection is gone; the next try is under way. */
  onDisconnected(error: Error): void;
}

/** The Postgres port. Everything of one mesh lives in one schema. */
export interface Storage extends Session {
  /** Schema name, unquoted. */
  readonly schema: string;
  /** Quoted, schema-qualified name of a table, sequence or function: `table("jobs")` → `"public"."jobs"`. */
  table(name: string): string;
  /** NOTIFY channel of this mesh: at most 63 bytes, different for each schema. */
  channel(name: string): string;
  /**
   * Takes a connection. BEGIN goes to the server along with the first statement; where the connection turns out to be dead
   * by then, both go to another one, so what a dead one had executed of them is never committed.
   */
  begin(options?: QueryOptions): Promise<OwnedTransaction>;
  /**
   * Two statements in one round trip, each a transaction of its own. Resolves with the first one's rows; `next`, the end of the
   * second, must be handled. Where the first is refused, the second is executed all the same, and nobody hears how it ended.
   */
  queryThen<T = Row>(first: Statement, next: Statement): Promise<{ readonly rows: T[]; readonly next: Promise<void> }>;
  /** Opens the listening connection (`listenUrl`, else `url`). Resolves once LISTEN is in force, rejects if the first try fails. */
  listen(channels: readonly string[], handlers: ListenerHandlers): Promise<Listener>;
  /** What the pool looks like now. `reachable`: false from a failed connection until the next success. */
  stats(): { readonly total: number; readonly idle: number; readonly waiting: number; readonly reachable: boolean };
  /** Waits for queries under way, up to `graceMs` (default 5000), then closes every connection. */
  close(graceMs?: number): Promise<void>;
}
