import { createHash, randomBytes, randomUUID } from "node:crypto";
import { MeshError } from "../errors.js";
import { now } from "../pipeline/deadline.js";
import type { Session, Storage } from "../contract/storage.js";

const PREFIX = "cbk_";
const KEY = /^cbk_[A-Za-z0-9_-]{43}$/;
/** How long a key that was revoked elsewhere may still be let in. */
const CACHE_MS = 5_000;
const CACHE_SIZE = 1_000;
const QUERY_WAIT_MS = 2_000;
const MOST_LISTED = 1_000;

/** Who made a request. `id` is null for the bootstrap key. */
export interface ApiKeyIdentity {
  readonly id: string | null;
  readonly name: string;
}

export interface NewApiKey {
  readonly id: string;
  readonly name: string;
  /** Shown here and never again: the table holds its hash only. */
  readonly key: string;
  /** Database clock, ms since the epoch; null: never. */
  readonly expiresAtMs: number | null;
}

export interface ApiKeyInfo {
  readonly id: string;
  readonly name: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number | null;
  readonly revokedAtMs: number | null;
}

interface Cached {
  readonly identity: ApiKeyIdentity | null;
  /** On the monotonic clock. */
  readonly until: number;
}

interface FoundRow {
  readonly id: string;
  readonly name: string;
  readonly left_ms: number | null;
}

/** Keys in the table, by hash; expiry and revocation are on the clock of the database. */
export class ApiKeys {
  readonly #storage: Storage;
  readonly #table: string;
  readonly #cache = new Map<string, Cached>();
  readonly #lookups = new Map<string, Promise<ApiKeyIdentity | null>>();

  constructor(storage: Storage) {
    this.#storage = storage;
    this.#table = storage.table("_chimpbase_mesh_api_keys");
  }

  /** Null for a key that is unknown, expired or revoked. Rejects with code `AUTH_UNAVAILABLE` where Postgres cannot be asked. */
  async find(key: string): Promise<ApiKeyIdentity | null> {
    if (!KEY.test(key)) return null;
    const hash = sha256(key).toString("hex");
    const cached = this.#cache.get(hash);
    if (cached !== undefined && cached.until > now()) return cached.identity;
    // Requests that come in together with a new key ask once.
    let lookup = this.#lookups.get(hash);
    if (lookup === undefined) {
      lookup = this.#lookUp(hash).finally(() => this.#lookups.delete(hash));
      this.#lookups.set(hash, lookup);
    }
    return lookup;
  }

  async create(session: Session, name: string, expiresInMs: number | null): Promise<NewApiKey> {
    const id = randomUUID();
    const key = PREFIX + randomBytes(32).toString("base64url");
    const [row] = await session.query<{ expires_at_ms: number | null }>(
      `INSERT INTO ${this.#table} (id, name, key_hash, expires_at)
       VALUES ($1, $2, $3, clock_timestamp() + $4::double precision * interval '1 millisecond')
       RETURNING ${epochMs("expires_at")}`,
      [id, name, sha256(key).toString("hex"), expiresInMs],
    );
    return { id, name, key, expiresAtMs: row?.expires_at_ms ?? null };
  }

  /** False where there is no such key, or it was revoked before. In force within 5 s on every node. */
  async revoke(session: Session, id: string): Promise<boolean> {
    const rows = await session.query<{ key_hash: string }>(
      `UPDATE ${this.#table} SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL RETURNING key_hash`,
      [id],
    );
    for (const { key_hash } of rows) this.#cache.delete(key_hash);
    return rows.length > 0;
  }

  /** The newest 1000, newest first. */
  async list(session: Session): Promise<ApiKeyInfo[]> {
    const rows = await session.query<{ id: string; name: string; created_at_ms: number; expires_at_ms: number | null; revoked_at_ms: number | null }>(
      `SELECT id, name, ${epochMs("created_at")}, ${epochMs("expires_at")}, ${epochMs("revoked_at")}
       FROM ${this.#table} ORDER BY ${this.#table}.created_at DESC, id LIMIT ${MOST_LISTED}`,
    );
    return rows.map(({ id, name, created_at_ms, expires_at_ms, revoked_at_ms }) => ({
      id, name, createdAtMs: created_at_ms, expiresAtMs: expires_at_ms, revokedAtMs: revoked_at_ms,
    }));
  }

  async #lookUp(hash: string): Promise<ApiKeyIdentity | null> {
    // From before the query: an answer must not be kept longer than from when it was true.
    const asked = now();
    const row = await this.#select(hash);
    const identity = row === undefined ? null : { id: row.id, name: row.name };
    this.#keep(hash, { identity, until: asked + Math.min(CACHE_MS, row?.left_ms ?? CACHE_MS) });
    return identity;
  }

  async #select(hash: string): Promise<FoundRow | undefined> {
    try {
      const [row] = await this.#storage.query<FoundRow>(
        `SELECT id, name, (extract(epoch FROM expires_at - clock_timestamp()) * 1000)::double precision AS left_ms
         FROM ${this.#table} WHERE key_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())`,
        [hash],
        { acquireTimeoutMs: QUERY_WAIT_MS },
      );
      return row;
    } catch (cause) {
      throw new MeshError("authentication is unavailable: the database cannot be asked", { code: "AUTH_UNAVAILABLE", status: 503, retryable: true, cause });
    }
  }

  #keep(hash: string, entry: Cached): void {
    this.#cache.delete(hash);
    this.#cache.set(hash, entry);
    if (this.#cache.size > CACHE_SIZE) this.#cache.delete(this.#cache.keys().next().value as string);
  }
}

export function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function epochMs(column: string): string {
  return `(extract(epoch FROM ${column}) * 1000)::double precision AS ${column}_ms`;
}
