import type { Logger } from "../logger.js";
import { MeshConfigurationError } from "../errors.js";

export interface PostgresOptions {
  readonly url: string;
  /** Direct connection for LISTEN. Default: `url`. */
  readonly listenUrl?: string;
  /** Default 10. */
  readonly poolSize?: number;
  /** Default `"public"`. */
  readonly schema?: string;
  /** Seen in `pg_stat_activity`. Default `"chimpbase-mesh"`. */
  readonly applicationName?: string;
  readonly log: Logger;
}

const MAX_POOL_SIZE = 1_000;
/** Nothing that would need quoting rules of its own, nor more than the 63 bytes that Postgres keeps of a name. */
const SCHEMA_NAME = /^[A-Za-z_][A-Za-z0-9_$-]{0,62}$/;

/** Full options, or `MeshConfigurationError` naming the option. Passwords never appear in a message. */
export function checkPostgresOptions(options: PostgresOptions): Required<PostgresOptions> {
  const { url, listenUrl = url, poolSize = 10, schema = "public", applicationName = "chimpbase-mesh", log } = options;
  checkUrl("database.url", url);
  checkUrl("database.listenUrl", listenUrl);
  checkPoolSize(poolSize);
  checkSchema(schema);
  return { url, listenUrl, poolSize, schema, applicationName, log };
}

function checkUrl(option: string, url: unknown): void {
  const wanted = "postgres://user:password@host:5432/database";
  if (typeof url !== "string" || !URL.canParse(url) || !decodes(url)) {
    throw new MeshConfigurationError(`${option} is not a URL; expected the form ${wanted}, with % and other special characters percent-encoded`);
  }
  const { protocol } = new URL(url);
  if (protocol !== "postgres:" && protocol !== "postgresql:") {
    throw new MeshConfigurationError(`${option} begins with "${protocol}"; expected the form ${wanted}`);
  }
}

/** A stray percent sign, in a password most often. */
function decodes(url: string): boolean {
  try {
    const { username, password, pathname } = new URL(url);
    return decodeURIComponent(username + password + pathname).length >= 0;
  } catch {
    return false;
  }
}

function checkPoolSize(poolSize: unknown): void {
  if (Number.isInteger(poolSize) && (poolSize as number) >= 1 && (poolSize as number) <= MAX_POOL_SIZE) return;
  throw new MeshConfigurationError(`database.poolSize is ${String(poolSize)}; give a whole number from 1 to ${MAX_POOL_SIZE}`);
}

function checkSchema(schema: unknown): void {
  if (typeof schema === "string" && SCHEMA_NAME.test(schema) && !schema.startsWith("pg_") && schema !== "information_schema") return;
  throw new MeshConfigurationError(
    `database.schema is ${JSON.stringify(schema)}; give a name of letters, digits, _, $ and -, ` +
      `at most 63 long, that begins with a letter or _ and is not reserved by Postgres`,
  );
}
