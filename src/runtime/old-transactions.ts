import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";

/** The transaction of this database that has been open longest, as far as this role may see. */
export interface OpenTransaction {
  readonly pid: number;
  readonly applicationName: string;
  readonly startedAt: string;
  readonly openMs: number;
}

/** As a scalar, JSON. Those that have neither a snapshot nor an id of their own keep nothing alive. */
export const OLDEST_TRANSACTION_SQL = `(
  SELECT json_build_object('pid', pid, 'applicationName', application_name, 'startedAt', xact_start,
    'openMs', extract(epoch FROM clock_timestamp() - xact_start) * 1000)
  FROM pg_stat_activity
  WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
  ORDER BY xact_start LIMIT 1)`;

const CHECK_EVERY_MS = 30_000;
const OLD_MS = 60_000;

/**
 * Warns of transactions that stay open: whoever they belong to, Postgres keeps each dead row of the queue for them, and
 * every claim has to step over these.
 */
export class OldTransactions {
  readonly #log: Logger;
  #checkedAt = -Infinity;
  #known = "";

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Often enough to warn of a transaction within its first two minutes: a node looks every few seconds. */
  get due(): boolean {
    return now() - this.#checkedAt >= CHECK_EVERY_MS;
  }

  /** One warning for each transaction. */
  note(oldest: OpenTransaction | null): void {
    this.#checkedAt = now();
    if (oldest === null || oldest.openMs < OLD_MS) return;
    const { pid, applicationName, startedAt, openMs } = oldest;
    const key = `${pid} ${startedAt}`;
    if (key === this.#known) return;
    this.#known = key;
    this.#log.warn("a transaction has been open for more than a minute: while it is, Postgres keeps dead rows, and queues get slower", {
      pid, applicationName, startedAt, openMs: Math.round(openMs),
    });
  }
}
