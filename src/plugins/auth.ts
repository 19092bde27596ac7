import { timingSafeEqual } from "node:crypto";
import { MeshConfigurationError, MeshError, MeshValidationError } from "../errors.js";
import { ApiKeys, sha256 } from "./api-keys.js";
import { GuardedPaths } from "./guarded-paths.js";
import type { ApiKeyIdentity } from "./api-keys.js";
import type { Context } from "../contract/context.js";
import type { HostEnv, Plugin, RouteEnv, ScopedContext } from "../contract/registration.js";

export interface AuthOptions {
  /** Name of the secret that holds the bootstrap key: the key that needs no database, and creates the others. */
  readonly bootstrapKeySecret: string;
  /**
   * `"all"` (the default), or a list: `"/admin"` protects that path and all beneath it, a regular expression what it
   * matches.
   */
  readonly protectedPaths?: "all" | readonly (string | RegExp)[] | undefined;
  /** Let through without a key: `"/livez"` is exactly that path, `"/public/*"` all beneath it. Default `["/livez", "/readyz"]`. */
  readonly excludePaths?: readonly (string | RegExp)[] | undefined;
}

const OPTIONS = ["bootstrapKeySecret", "protectedPaths", "excludePaths"];
const LONGEST_NAME = 200;
const LONGEST_LIFE_MS = 100 * 365 * 24 * 3_600_000;
/** Where routes behind the guard find who made the request: `env.get("auth")`. */
const IDENTITY_KEY = "auth";

/**
 * Guards the routes registered after it: by `x-api-key` or `authorization: Bearer`, against the bootstrap secret and the
 * keys in the table. Keys are managed by the host actions `__chimpbase.auth.keys.create` (`{ name, expiresInMs? }`),
 * `.revoke` (`{ id }`) and `.list`.
 */
export function chimpbaseAuth(options: AuthOptions): Plugin {
  const guard = new AuthGuard(options);
  return {
    kind: "plugin",
    name: "chimpbase-auth",
    dependsOn: [],
    registrations: [
      { kind: "lifecycle", name: "chimpbase-auth", ready: (env) => guard.open(env), close: () => guard.close() },
      { kind: "route", name: "chimpbase-auth", handler: (request, env) => guard.check(request, env) },
      { kind: "action", name: "__chimpbase.auth.keys.create", handler: (ctx, args) => guard.createKey(ctx, args) },
      { kind: "action", name: "__chimpbase.auth.keys.revoke", handler: (ctx, args) => guard.revokeKey(ctx, args) },
      { kind: "action", name: "__chimpbase.auth.keys.list", handler: (ctx) => guard.listKeys(ctx) },
    ],
  };
}

interface Opened {
  readonly bootstrapDigest: Buffer;
  readonly keys: ApiKeys;
}

class AuthGuard {
  readonly #paths: GuardedPaths;
  readonly #bootstrapKeySecret: string;
  #opened: Opened | undefined;

  constructor(options: AuthOptions) {
    const unknown = Object.keys(options).find((key) => !OPTIONS.includes(key));
    if (unknown !== undefined) throw new MeshConfigurationError(`chimpbaseAuth: unknown option "${unknown}"; known are: ${OPTIONS.join(", ")}`);
    const { bootstrapKeySecret, protectedPaths = "all", excludePaths = ["/livez", "/readyz"] } = options;
    if (typeof bootstrapKeySecret !== "string" || bootstrapKeySecret === "") {
      throw new MeshConfigurationError('chimpbaseAuth: option "bootstrapKeySecret" must be the name of a secret');
    }
    this.#bootstrapKeySecret = bootstrapKeySecret;
    this.#paths = new GuardedPaths({ protectedPaths, excludePaths });
  }

  open(env: HostEnv): void {
    if (this.#opened !== undefined) throw new MeshConfigurationError("one chimpbaseAuth() belongs to one host: make another for another host");
    const bootstrapKey = env.secret(this.#bootstrapKeySecret);
    if (bootstrapKey === null || bootstrapKey === "") {
      throw new MeshConfigurationError(`chimpbaseAuth: the secret "${this.#bootstrapKeySecret}" (option "bootstrapKeySecret") is missing or empty`);
    }
    this.#opened = { bootstrapDigest: sha256(bootstrapKey), keys: new ApiKeys(env.storage) };
  }

  close(): void {
    this.#opened = undefined;
  }

  async check(request: Request, env: RouteEnv): Promise<Response | null> {
    if (!this.#paths.guards(new URL(request.url).pathname)) return null;
    for (const key of presentedKeys(request.headers)) {
      const identity = await this.#identify(key);
      if (identity === null) continue;
      env.set(IDENTITY_KEY, identity);
      return null;
    }
    return unauthorized();
  }

  createKey(ctx: Context, args: unknown): Promise<unknown> {
    const { name, expiresInMs } = (args ?? {}) as { name?: unknown; expiresInMs?: unknown };
    if (!isText(name) || name === "" || name.length > LONGEST_NAME) throw invalid("name", `name must be a string of 1 to ${LONGEST_NAME} characters, without NUL`);
    if (expiresInMs !== undefined && expiresInMs !== null && !isLife(expiresInMs)) throw invalid("expiresInMs", "expiresInMs must be a positive number of ms");
    return this.#keys().create(sessionOf(ctx), name, (expiresInMs as number | null | undefined) ?? null);
  }

  async revokeKey(ctx: Context, args: unknown): Promise<unknown> {
    const { id } = (args ?? {}) as { id?: unknown };
    if (!isText(id)) throw invalid("id", "id must be the id of a key");
    return { revoked: await this.#keys().revoke(sessionOf(ctx), id) };
  }

  listKeys(ctx: Context): Promise<unknown> {
    return this.#keys().list(sessionOf(ctx));
  }

  async #identify(key: string): Promise<ApiKeyIdentity | null> {
    const opened = this.#open();
    // Digests are of one length, which is what the comparison in constant time needs.
    if (timingSafeEqual(sha256(key), opened.bootstrapDigest)) return { id: null, name: "bootstrap" };
    return opened.keys.find(key);
  }

  #keys(): ApiKeys {
    return this.#open().keys;
  }

  #open(): Opened {
    if (this.#opened === undefined) throw new MeshError("chimpbaseAuth is not running", { code: "AUTH_UNAVAILABLE", status: 503, retryable: true });
    return this.#opened;
  }
}

function presentedKeys(headers: Headers): string[] {
  const bearer = /^Bearer +(\S+) *$/i.exec(headers.get("authorization") ?? "")?.[1];
  return [headers.get("x-api-key"), bearer].filter((key): key is string => typeof key === "string" && key !== "");
}

function unauthorized(): Response {
  return Response.json(
    { ok: false, error: "unauthorized", code: "UNAUTHORIZED" },
    { status: 401, headers: { "www-authenticate": 'Bearer realm="chimpbase"' } },
  );
}

/** Postgres stores no NUL. */
function isText(value: unknown): value is string {
  return typeof value === "string" && !value.includes("\0");
}

function isLife(value: unknown): boolean {
  return typeof value === "number" && value > 0 && value <= LONGEST_LIFE_MS;
}

function invalid(path: string, message: string): MeshValidationError {
  return new MeshValidationError(message, [{ path, message, constraint: "auth" }]);
}

/** The caller's transaction, where there is one. */
function sessionOf(ctx: Context): ScopedContext["session"] {
  return (ctx as ScopedContext).session;
}
