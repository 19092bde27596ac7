import type { QueryOptions, Statement, Storage } from "../contract/storage.js";
import { sqlState } from "../storage/connection-errors.js";
import { endedClaimsSql, NOT_HELD } from "../storage/functions.js";
import { compareIds } from "./lane-search.js";

/** How many jobs of one lane a claim may take. */
export interface LaneQuota {
  readonly lane: string;
  readonly quota: number;
  /** Id to search from. Default: the beginning of the lane. */
  readonly from?: string | undefined;
}

export interface Claim {
  /** By id. */
  readonly jobs: ClaimedJob[];
  /** What that took, in ms, by the clock of the database. */
  readonly tookMs: number;
  /** Id that was given last to any job; "0" where there was none. */
  readonly newest: string;
}

/**
 * What proves that a job is ours. The fence grows whenever a holder lets go of the job or loses it; the token is that of
 * the claim, so that a claim which a crash of Postgres has undone proves nothing although the fence is the same again.
 */
export interface JobRef {
  readonly id: string;
  readonly fence: number;
  readonly token: string;
}

export interface ClaimedJob extends JobRef {
  readonly lane: string;
  readonly queue: string;
  readonly group: string | null;
  readonly event: string | null;
  /** JSON, as written. */
  readonly payload: string;
  readonly headers: string;
  /** This attempt included. */
  readonly attempt: number;
  readonly history: string;
  readonly createdAtMs: number;
  /** Database clock. */
  readonly claimedAtMs: number;
}

/** What becomes of a job whose attempt failed: deferred by `delayMs` into `lane`, or, with `error`, a dead letter. */
export interface FailedJob extends JobRef {
  readonly lane: string;
  readonly delayMs: number;
  readonly history: string;
  readonly error: string | null;
}

export interface ReleasedJob extends JobRef {
  /** True: the claim does not count as an attempt. */
  readonly unstarted: boolean;
}

/** What holds, ends and gives up leases must not wait for the transactions of the very jobs that it is about. */
export const RESERVED: QueryOptions = { reserved: true, answerTimeoutMs: 10_000 };

type LastRow = Omit<Claim, "jobs"> & Pick<ClaimedJob, "claimedAtMs">;
type JobRow = Omit<ClaimedJob, "token" | "claimedAtMs">;

/** Least of what a job's id may be, also of one that was written by hand. */
const BEGINNING = "-9223372036854775808";
const MOVED_COLUMNS = "id, lane, queue, grp, event, payload, headers, attempt, created_at";

/**
 * The statements on claimed jobs. Each that changes a job is fenced: it names id, fence and token, and returns what it
 * found, so that a holder that has lost its lease changes nothing and learns of it.
 */
export class JobQueue {
  readonly #storage: Storage;
  readonly #nodeId: string;
  readonly #leaseMs: number;
  readonly #jobs: string;
  readonly #ready: string;
  readonly #claims: string;
  readonly #deferred: string;
  readonly #deadLetters: string;
  readonly #functions: { readonly claim: string; readonly complete: string; readonly beginJob: string };

  constructor(storage: Storage, nodeId: string, leaseMs: number) {
    this.#storage = storage;
    this.#nodeId = nodeId;
    this.#leaseMs = leaseMs;
    this.#jobs = storage.table("_chimpbase_mesh_jobs");
    this.#ready = storage.table("_chimpbase_mesh_ready");
    this.#claims = storage.table("_chimpbase_mesh_claims");
    this.#deferred = storage.table("_chimpbase_mesh_deferred");
    this.#deadLetters = storage.table("_chimpbase_mesh_dead_letters");
    this.#functions = {
      claim: storage.table("_chimpbase_mesh_claim"),
      complete: storage.table("_chimpbase_mesh_complete"),
      beginJob: storage.table("_chimpbase_mesh_begin_job"),
    };
  }

  /**
   * Oldest ready jobs of each lane, in order. `token` must be new at each call. `ended`: claims of which nothing is held any
   * more.
   */
  async claim(quotas: readonly LaneQuota[], token: string, ended: readonly string[] = []): Promise<Claim> {
    const rows = await this.#storage.query<JobRow | LastRow>(
      `SELECT * FROM ${this.#functions.claim}($1, $2, $3, $4, $5, $6, $7)`,
      [quotas.map(({ lane }) => lane), quotas.map(({ quota }) => quota), quotas.map(({ from = BEGINNING }) => from), token, this.#nodeId, this.#leaseMs, ended],
      { prepare: true },
    );
    const { claimedAtMs, tookMs, newest } = rows.pop() as LastRow;
    const jobs = (rows as JobRow[]).map((row) => ({ ...row, token, claimedAtMs }));
    // What is read by an array has no order.
    return { jobs: jobs.sort((a, b) => compareIds(a.id, b.id)), tookMs, newest };
  }

  /** Gives back all that a claim took whose answer was lost. */
  async disown(token: string): Promise<void> {
    await this.#storage.query(
      `WITH disowned AS (DELETE FROM ${this.#claims} WHERE token = $1::uuid RETURNING ids, fences),
       freed AS (
         UPDATE ${this.#jobs} AS j SET fence = j.fence + 1
         FROM disowned CROSS JOIN LATERAL unnest(ids, fences) AS held(id, fence)
         WHERE j.id = held.id AND j.fence = held.fence RETURNING j.lane, j.id, j.fence)
       INSERT INTO ${this.#ready} (lane, id, fence) SELECT lane, id, fence FROM freed`,
      [token],
    );
  }

  /** Forgets this node's claims of which nothing is held any more: also those that a claim or a look was to forget, and passed by. */
  async forget(): Promise<void> {
    await this.#storage.query(endedClaimsSql(this.#claims, this.#jobs, "holder = $1"), [this.#nodeId], RESERVED);
  }

  /** Returns the ids that were still ours, and are done now. */
  async complete(jobs: readonly JobRef[]): Promise<Set<string>> {
    return idsOf(await this.#storage.query<{ id: string }>(`SELECT id FROM ${this.#functions.complete}($1, $2, $3)`, refArrays(jobs), { ...RESERVED, prepare: true }));
  }

  /** Moves each job to where its failure sends it. Returns the ids that were still ours. */
  async fail(jobs: readonly FailedJob[]): Promise<Set<string>> {
    return idsOf(await this.#storage.query<{ id: string }>(
      `WITH failed AS (
         SELECT * FROM unnest($1::bigint[], $2::int[], $3::uuid[], $4::text[], $5::float8[], $6::text[], $7::text[])
           AS f(id, fence, token, new_lane, delay_ms, new_history, error)),
       gone AS (
         DELETE FROM ${this.#jobs} AS j USING failed AS f WHERE ${this.#isHeld("f")}
         RETURNING j.id, f.new_lane AS lane, j.queue, j.grp, j.event, j.payload, j.headers, j.attempt + 1 AS attempt, j.created_at,
           j.fence + 1 AS fence, f.delay_ms, f.new_history, f.error),
       later AS (
         INSERT INTO ${this.#deferred} (${MOVED_COLUMNS}, fence, history, run_at)
         SELECT ${MOVED_COLUMNS}, fence, new_history, clock_timestamp() + delay_ms * interval '1 millisecond'
         FROM gone WHERE error IS NULL),
       dead AS (
         INSERT INTO ${this.#deadLetters} (${MOVED_COLUMNS}, history, error)
         SELECT ${MOVED_COLUMNS}, new_history, error FROM gone WHERE error IS NOT NULL)
       SELECT id FROM gone`,
      [...refArrays(jobs), jobs.map((job) => job.lane), jobs.map((job) => job.delayMs),
        jobs.map((job) => job.history), jobs.map((job) => job.error)],
      RESERVED,
    ));
  }

  /** Makes jobs ready again. */
  async release(jobs: readonly ReleasedJob[]): Promise<void> {
    await this.#storage.query(
      `WITH freed AS (
         UPDATE ${this.#jobs} AS j SET fence = j.fence + 1, attempt = j.attempt + r.counted
         FROM unnest($1::bigint[], $2::int[], $3::uuid[], $4::int[]) AS r(id, fence, token, counted)
         WHERE ${this.#isHeld("r")} RETURNING j.lane, j.id, j.fence)
       INSERT INTO ${this.#ready} (lane, id, fence) SELECT lane, id, fence FROM freed`,
      [...refArrays(jobs), jobs.map((job) => (job.unstarted ? 0 : 1))],
      RESERVED,
    );
  }

  /** Extends the leases of the claims that these jobs are from, and returns the ids that are still ours. */
  async extend(jobs: readonly JobRef[]): Promise<Set<string>> {
    return idsOf(await this.#storage.query<{ id: string }>(
      `WITH extended AS (
         UPDATE ${this.#claims} SET lease_until = clock_timestamp() + $4::float8 * interval '1 millisecond'
         WHERE token = ANY ($5::uuid[]) RETURNING token)
       SELECT j.id FROM unnest($1::bigint[], $2::int[], $3::uuid[]) AS h(id, fence, token) JOIN extended USING (token)
         JOIN ${this.#jobs} AS j ON j.id = h.id AND j.fence = h.fence`,
      [...refArrays(jobs), this.#leaseMs, [...new Set(jobs.map((job) => job.token))]],
      // What waits must not keep the next try from coming in time.
      { reserved: true, acquireTimeoutMs: this.#leaseMs / 3, answerTimeoutMs: this.#leaseMs / 3 },
    ));
  }

  /**
   * Whether the job is still under our fence, after a commit whose answer was lost. The lock waits for a backend that may
   * still be committing, so the answer is final.
   */
  async stillHeld(job: JobRef): Promise<boolean> {
    const rows = await this.#storage.query(`SELECT id FROM ${this.#jobs} WHERE id = $1 AND fence = $2 FOR UPDATE`, [job.id, job.fence]);
    return rows.length > 0;
  }

  /**
   * First statement of a job's transaction, and its completion: fails, and nothing after it is executed, where the job is
   * no longer ours (see `isNotHeld`). Deleted first and not last, the row keeps others off for as long as the transaction
   * lives; the idle limit ends it, and brings the row back, where this process is frozen.
   */
  completing(job: JobRef): Statement {
    return { sql: `SELECT ${this.#functions.beginJob}($1, $2, $3, $4)`, params: [job.id, job.fence, job.token, Math.ceil(this.#leaseMs)], prepare: true };
  }

  /** Condition on a row `j` of jobs: it is held as the row `ref` of references says. */
  #isHeld(ref: string): string {
    return `j.id = ${ref}.id AND j.fence = ${ref}.fence AND EXISTS (SELECT FROM ${this.#claims} AS c WHERE c.token = ${ref}.token)`;
  }
}

/** Whether `completing` failed because the job is not ours. */
export function isNotHeld(error: unknown): boolean {
  return sqlState(error) === NOT_HELD;
}

/** Parameters that name jobs: ids, fences, tokens. */
export function refArrays(jobs: readonly JobRef[]): [string[], number[], string[]] {
  return [jobs.map((job) => job.id), jobs.map((job) => job.fence), jobs.map((job) => job.token)];
}

function idsOf(rows: readonly { readonly id: string }[]): Set<string> {
  return new Set(rows.map((row) => row.id));
}
