import type { Logger } from "../logger.js";
import type { Storage } from "../contract/storage.js";

export interface PostgresOptions {
  readonly url: string;
  readonly listenUrl?: string;
  /** Default 10. */
  readonly poolSize?: number;
  /** Default `"public"`. */
  readonly schema?: string;
  readonly applicationName?: string;
  readonly log: Logger;
}

export function openPostgres(_options: PostgresOptions): Promise<Storage> {
  throw new Error("stub");
}
