import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../support/wait.js";
import { FaultCluster } from "./cluster.js";
import { watchStalls } from "./stalls.js";
import { History, now } from "./history.js";
import type { Effect } from "./history.js";
import type { FaultyPostgres } from "./postgres.js";
import type { Random } from "./random.js";

export interface Scenario {
  readonly name: string;
  /** What it holds the mesh to. */
  readonly promise: string;
  run(trial: Trial): Promise<void>;
}

const LONGEST_WAIT_MS = 120_000;
const SETTLE_LIMIT_MS = 20_000;
const CHANNEL = "chimpbase:public:mesh";

/** One run of one scenario: what it may use, and what it has found. */
export class Trial {
  readonly history = new History();
  readonly violations: string[] = [];
  readonly cluster: FaultCluster;
  readonly channel = CHANNEL;
  /** Failed calls that are put down to a starved machine. */
  unjudged = 0;
  /** Names of nodes that the scenario stops by SIGSTOP: not the machine's doing. */
  readonly frozen: string[] = [];
  readonly #database: string;
  readonly #stopWatching: () => void;

  private constructor(readonly postgres: FaultyPostgres, readonly random: Random, readonly quick: boolean, database: string) {
    this.#database = database;
    this.cluster = new FaultCluster(postgres, database, this.history);
    this.#stopWatching = watchStalls("harness", (entry) => this.history.add(entry));
  }

  static async open(postgres: FaultyPostgres, random: Random, quick: boolean, database: string): Promise<Trial> {
    await postgres.query("postgres", `CREATE DATABASE ${database}`);
    await postgres.query(
      database,
      "CREATE TABLE effects (event TEXT, node TEXT, emitter TEXT, seq INTEGER, at TIMESTAMPTZ DEFAULT clock_timestamp())",
    );
    return new Trial(postgres, random, quick, database);
  }

  /** The first figure in a quick run, the second in a full one. */
  size(quick: number, full: number): number {
    return this.quick ? quick : full;
  }

  /** Waits some time between the two. */
  async pause(lowMs: number, highMs = lowMs): Promise<void> {
    await sleep(this.random.between(lowMs, highMs));
  }

  /** Notes a fault as it is done; returns the time. */
  fault(what: string): number {
    const at = now();
    this.history.add({ kind: "fault", what, at });
    return at;
  }

  check(holds: boolean, violation: string): void {
    if (!holds) this.violations.push(violation);
  }

  /** For rules over many operations: one violation, with the first few that break it. */
  none(broken: readonly unknown[], rule: string): void {
    const shown = broken.slice(0, 3).map((entry) => (typeof entry === "string" ? entry : JSON.stringify(entry)));
    this.check(broken.length === 0, `${rule}: ${broken.length}, as ${shown.join("; ")}`);
  }

  /** Waits for a condition; a violation where it does not come in time. */
  async within(limitMs: number, rule: string, condition: () => Promise<boolean> | boolean): Promise<void> {
    const startedAt = now();
    const expired = (): boolean => this.took(startedAt, now()) > limitMs;
    await until(async () => (await condition()) || expired(), { timeoutMs: LONGEST_WAIT_MS });
    this.check(!expired(), `${rule}: not within ${Math.round(limitMs)} ms`);
  }

  /** Time between the two in ms, without that in which the machine let processes of the cluster wait. */
  took(from: number, to: number): number {
    return to - from - this.history.stalledMs(from, to, this.frozen);
  }

  query<T extends object>(sql: string, params: unknown[] = []): Promise<T[]> {
    return this.postgres.query(this.#database, sql, params);
  }

  /** Terminates backends of the nodes for which `condition` on pg_stat_activity holds, `most` of them. */
  async terminate(what: string, condition: string, most = 100): Promise<void> {
    this.fault(`terminate ${what}`);
    await this.query(
      `SELECT pg_terminate_backend(pid) FROM (
         SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'faults' AND (${condition}) LIMIT ${most}) AS chosen`,
    );
  }

  async restartPostgres(mode: "fast" | "immediate", downMs = 0): Promise<void> {
    this.fault(`Postgres ${mode} restart, ${Math.round(downMs)} ms down`);
    await this.postgres.restart(mode, downMs);
  }

  /** Ends the load, waits for the jobs that are left, and reads what they have done into the history. */
  async settle(): Promise<void> {
    await this.cluster.quiet();
    const left = async (): Promise<boolean> => {
      const [count] = await this.query<{ count: string }>(
        "SELECT (SELECT count(*) FROM _chimpbase_mesh_jobs) + (SELECT count(*) FROM _chimpbase_mesh_deferred) AS count",
      );
      return Number(count!.count) === 0;
    };
    await this.within(SETTLE_LIMIT_MS, "jobs are left in the queue", left);
    const dead = await this.query("SELECT queue, error, history FROM _chimpbase_mesh_dead_letters");
    this.none(dead, "jobs among the dead letters");
    const effects = await this.query<Effect>(
      "SELECT 'effect' AS kind, event, node, emitter, seq, extract(epoch FROM at)::float8 * 1000 AS at FROM effects ORDER BY at",
    );
    this.history.add(...effects);
  }

  async close(): Promise<void> {
    this.#stopWatching();
    await this.cluster.close();
    // Where the scenario broke off it may be down.
    await this.postgres.start();
    await this.postgres.query("postgres", `DROP DATABASE ${this.#database} WITH (FORCE)`);
  }
}
