import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { ScopedContext, BalancedRegistration, Dispatcher, Scope, WorkerOptions, WorkerRegistration } from "#mesh/contract/registration.js";
import type { Storage } from "#mesh/contract/storage.js";
import { createLogger, type Logger } from "#mesh/logger.js";
import { isThenable } from "#mesh/pipeline/thenable.js";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { encodeJobHeaders } from "#mesh/runtime/job-headers.js";
import { groupLane, queueLane } from "#mesh/storage/lanes.js";
import { createWorkerEngine, type WorkerDefaults, type WorkerEngine } from "#mesh/runtime/worker.js";
import { openPostgres } from "#mesh/storage/postgres.js";
import { createDatabase, type TestDatabase } from "../support/database.js";

export const TEST_DEFAULTS: WorkerDefaults = { concurrency: 10, leaseMs: 30_000, maxAttempts: 5, retryDelayMs: 20, pollIntervalMs: 100 };

export type Handler = (scope: Scope, payload: unknown) => unknown;

export interface TestNode {
  readonly nodeId: string;
  readonly storage: Storage;
  readonly engine: WorkerEngine;
  /** The drain limit of the host. */
  readonly drainLimit: Cancellation;
}

export interface JobRow {
  readonly id: string;
  readonly lane: string;
  readonly attempt: number;
  readonly token: string | null;
  readonly holder: string | null;
  readonly history: string;
  readonly error?: string;
}

/** A database, and nodes on it, each with a pool and an engine of its own. */
export class Cluster {
  readonly database: TestDatabase;
  readonly storage: Storage;
  readonly nodes: TestNode[] = [];

  private constructor(database: TestDatabase, storage: Storage) {
    this.database = database;
    this.storage = storage;
  }

  static async open(): Promise<Cluster> {
    const database = await createDatabase();
    return new Cluster(database, await openPostgres({ url: database.url, poolSize: 4, log: quiet() }));
  }

  /** `live`: what would wake it arrives, as the test itself sees to. */
  async node(defaults: Partial<WorkerDefaults> = {}, poolSize = 10, live = false, url = this.database.url): Promise<TestNode> {
    const nodeId = randomUUID();
    const storage = await openPostgres({ url, poolSize, log: quiet(), applicationName: `node-${nodeId}` });
    const drainLimit = new Cancellation();
    const dispatcher = fakeDispatcher(storage, drainLimit);
    const engine = createWorkerEngine({ storage, dispatcher, nodeId, log: quiet(), defaults: { ...TEST_DEFAULTS, ...defaults }, live: () => live });
    const node = { nodeId, storage, engine, drainLimit };
    this.nodes.push(node);
    return node;
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map(async ({ engine, storage }) => {
      await engine.stop();
      await storage.close();
    }));
    await this.storage.close();
    await this.database.drop();
  }

  /** Ids in order. */
  async enqueue(queue: string, payloads: readonly unknown[]): Promise<string[]> {
    return this.insert(queueLane(queue), queue, null, null, payloads.map((payload) => JSON.stringify(payload)));
  }

  async emitTo(group: string, pattern: string, event: string, payload: unknown): Promise<string> {
    const [id] = await this.insert(groupLane(group, pattern), `__chimpbase.mesh.balanced.${event}`, group, event, [JSON.stringify(payload)]);
    return id as string;
  }

  async insert(lane: string, queue: string, group: string | null, event: string | null, payloads: readonly string[]): Promise<string[]> {
    const rows = await this.storage.query<{ id: string }>(
      `WITH job AS (
         INSERT INTO _chimpbase_mesh_jobs (id, lane, queue, grp, event, payload, headers)
         SELECT nextval('_chimpbase_mesh_job_id'), $1, $2, $3, $4, payload, $6 FROM unnest($5::text[]) AS payload RETURNING lane, id)
       INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT lane, id FROM job RETURNING id`,
      [lane, queue, group, event, payloads, HEADERS],
    );
    return rows.map((row) => row.id);
  }

  /** With what holds them: null where they are ready. Each must be one or the other. */
  async jobs(): Promise<JobRow[]> {
    const rows = await this.storage.query<JobRow & { ready: boolean }>(
      `SELECT j.*, c.token, c.holder, r.id IS NOT NULL AS ready FROM _chimpbase_mesh_jobs AS j
         LEFT JOIN _chimpbase_mesh_ready AS r ON r.lane = j.lane AND r.id = j.id AND r.fence = j.fence
         LEFT JOIN (SELECT token, holder, held.* FROM _chimpbase_mesh_claims, unnest(ids, fences) AS held(id, fence)) AS c
           ON c.id = j.id AND c.fence = j.fence
       ORDER BY j.id`,
    );
    for (const row of rows) assert.equal(row.ready, row.token === null, `job ${row.id} is ${row.ready ? "ready and claimed" : "lost"}`);
    return rows;
  }

  /** Claims that nobody has deleted. */
  async claims(): Promise<number> {
    const [row] = await this.storage.query<{ n: number }>("SELECT count(*)::int AS n FROM _chimpbase_mesh_claims");
    return row!.n;
  }

  /** Takes all jobs from whoever has them, as another node would after the lease; for `leaseMs`, which may be over. */
  async steal(holder = "thief", leaseMs = 60_000): Promise<void> {
    await this.storage.query(
      `WITH stolen AS (UPDATE _chimpbase_mesh_jobs SET fence = fence + 1 RETURNING id, fence),
         taken AS (DELETE FROM _chimpbase_mesh_ready)
       INSERT INTO _chimpbase_mesh_claims (token, holder, lease_until, ids, fences)
       SELECT gen_random_uuid(), $1, clock_timestamp() + $2 * interval '1 millisecond', array_agg(id), array_agg(fence) FROM stolen`,
      [holder, leaseMs],
    );
  }

  deferred(): Promise<JobRow[]> {
    return this.storage.query("SELECT * FROM _chimpbase_mesh_deferred ORDER BY id");
  }

  deadLetters(): Promise<JobRow[]> {
    return this.storage.query("SELECT * FROM _chimpbase_mesh_dead_letters ORDER BY id");
  }

  /** No job is left anywhere but in the dead letters. */
  async settled(): Promise<boolean> {
    const [row] = await this.storage.query<{ n: number }>(
      "SELECT (SELECT count(*) FROM _chimpbase_mesh_jobs)::int + (SELECT count(*) FROM _chimpbase_mesh_deferred)::int AS n",
    );
    return row?.n === 0;
  }
}

export const EVENT_ID = "11111111-2222-4333-8444-555555555555";
const HEADERS = encodeJobHeaders({ requestIdJson: '"request-1"', metaJson: '{"tenant":"acme"}' }, "emitter", EVENT_ID);

export function worker(queue: string, handler: Handler, options: WorkerOptions = {}): WorkerRegistration {
  return { kind: "worker", queue, options, handler: (ctx, payload) => handler((ctx as ScopedContext).scope, payload) };
}

export function balanced(group: string, pattern: string, handler: Handler, options: WorkerOptions = {}): BalancedRegistration {
  return { kind: "balanced", group, pattern, options, target: { kind: "job", name: `${group}:${pattern}`, handler: (ctx, payload) => handler(ctx.scope, payload) } };
}

/** Runs handlers with nothing in the context but scope and session. */
export function fakeDispatcher(storage: Storage, root: Cancellation): Dispatcher {
  const context = (scope: Scope): ScopedContext => ({ scope, session: scope.session ?? storage }) as unknown as ScopedContext;
  const run: Dispatcher["run"] = (target, args, scope) => target.handler(context(scope), target.validate === undefined ? args : target.validate(args));
  return {
    run,
    begin: (target, args, scope) => {
      const result = run(target, args, scope);
      return { result, pending: isThenable(result) ? result : null, end: () => undefined };
    },
    dispatch: async (target, args, scope) => run(target, args, scope),
    rootScope: (overrides = {}) => ({
      requestId: randomUUID(), meta: {}, caller: null, level: 1, chain: null, deadline: null, cancellation: root, ...overrides,
    }),
    context,
  };
}

export function quiet(): Logger {
  return createLogger({ level: (process.env["TEST_LOG"] ?? "silent") as "silent" });
}

/** A door that handlers wait at until the test opens it. */
export class Gate {
  waiting = 0;
  readonly #opened: Promise<void>;
  open!: () => void;

  constructor() {
    this.#opened = new Promise((resolve) => (this.open = resolve));
  }

  async pass(): Promise<void> {
    this.waiting++;
    await this.#opened;
  }
}

export { sleep };
