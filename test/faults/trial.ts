import { setTimeout as sleep } from "node:timers/promises";
import { applyLeastPrivilege, type LeastPrivilege } from "../support/roles.js";
import { until } from "../support/wait.js";
import { AUDIT_SQL, READ_AUDIT_SQL, checkFencing } from "./audit.js";
import { checkOmissions } from "./checks/load.js";
import { FaultCluster } from "./cluster.js";
import { CONVERGE_LIMIT_MS, Missed, checkConvergence } from "./checks/convergence.js";
import { Findings } from "./findings.js";
import { watchStalls } from "./stalls.js";
import { now } from "./history.js";
import type { Effect, Transition } from "./history.js";
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
const BACK_LIMIT_MS = 5_000;
const CHANNEL = "chimpbase:public:mesh";
/** Transactions are short, and sessions that were just ended are coming back. */
const TERMINATE_LIMIT_MS = 2_000;
const EFFECTS_SQL = "CREATE TABLE effects (event TEXT, grp TEXT, node TEXT, emitter TEXT, seq INTEGER, at TIMESTAMPTZ DEFAULT clock_timestamp())";
const READ_EFFECTS_SQL =
  "SELECT 'effect' AS kind, event, grp AS \"group\", node, emitter, seq, extract(epoch FROM at)::float8 * 1000 AS at FROM effects ORDER BY at";

/** One run of one scenario: what it may use, and what it has found. */
export class Trial extends Findings {
  readonly cluster: FaultCluster;
  readonly channel = CHANNEL;
  /** How the nodes of this run know each other: by the seed. */
  readonly rpcAuth: "token" | "signed";
  readonly #database: string;
  readonly #role: LeastPrivilege;
  readonly #stopWatching: () => void;
  /** Since when no fault is on, and how long the nodes may take from there to agree on their peers. */
  #calm = { from: 0, limitMs: CONVERGE_LIMIT_MS };
  readonly #missed = new Missed();

  private constructor(readonly postgres: FaultyPostgres, readonly random: Random, readonly quick: boolean, database: string, role: LeastPrivilege) {
    super();
    this.#database = database;
    this.#role = role;
    this.rpcAuth = random.pick(["token", "signed"] as const);
    this.cluster = new FaultCluster(postgres, role.url, this.rpcAuth, this.history, (name) => this.check(false, `${name} has ended by itself`));
    this.#stopWatching = watchStalls("harness", (entry) => this.history.add(entry));
  }

  static async open(postgres: FaultyPostgres, random: Random, quick: boolean, database: string): Promise<Trial> {
    await postgres.query("postgres", `CREATE DATABASE ${database}`);
    const role = await applyLeastPrivilege(postgres.url(database));
    await postgres.query(database, `${EFFECTS_SQL}; ${AUDIT_SQL}`);
    await role.grant("SELECT, INSERT ON effects");
    return new Trial(postgres, random, quick, database, role);
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
    this.#calmFrom(at);
    return at;
  }

  /** A fault that took its time has ended; returns the time. */
  over(): number {
    const from = now();
    this.#calmFrom(from);
    return from;
  }

  /** A node was killed then, of which nobody tells the others. */
  killed(at: number): void {
    this.#missed.killed(at);
  }

  /** Nodes could not read the registry since then. */
  #outageOver(since: number): void {
    this.#missed.unreadable(since, now());
    this.over();
  }

  #calmFrom(from: number): void {
    this.#calm = { from, limitMs: CONVERGE_LIMIT_MS + this.#missed.inMs(from) };
  }

  /** Two heartbeats after the end of the last fault all nodes agree on their peers. */
  converge(): Promise<void> {
    return checkConvergence(this, () => this.cluster.agrees(), this.#calm.from, this.#calm.limitMs);
  }

  /** Waits for a condition; a violation where it does not come in time. */
  async within(limitMs: number, rule: string, condition: () => Promise<boolean> | boolean): Promise<void> {
    const startedAt = now();
    const expired = (): boolean => this.took(startedAt, now()) > limitMs;
    await until(async () => (await condition()) || expired(), { timeoutMs: LONGEST_WAIT_MS });
    this.check(!expired(), `${rule}: not within ${Math.round(limitMs)} ms`);
  }

  query<T extends object>(sql: string, params: unknown[] = []): Promise<T[]> {
    return this.postgres.query(this.#database, sql, params);
  }

  /** Terminates backends of the nodes for which `condition` on pg_stat_activity holds, `most` of them; a violation where there is none for a while. */
  async terminate(what: string, condition: string, most = 100): Promise<void> {
    const from = this.fault(`terminate ${what}`);
    const terminated = (): Promise<object[]> =>
      this.query(
        `SELECT pg_terminate_backend(pid) FROM (
           SELECT pid FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'faults' AND (${condition}) LIMIT ${most}) AS chosen`,
      );
    await this.within(TERMINATE_LIMIT_MS, `${what} to terminate`, async () => (await terminated()).length > 0);
    this.#outageOver(from);
  }

  async restartPostgres(mode: "fast" | "immediate", downMs = 0): Promise<void> {
    const from = this.fault(`Postgres ${mode} restart, ${Math.round(downMs)} ms down`);
    await this.postgres.restart(mode, downMs);
    this.#outageOver(from);
  }

  /**
   * Right after the last fault, under load: the nodes must agree on their peers, and those that have emitted must be able to again. Ends the load, waits for the jobs that are left, reads what
   * they have done into the history, and checks that only their holders did it.
   */
  async settle(): Promise<void> {
    await Promise.all([this.converge(), this.within(BACK_LIMIT_MS, "all nodes that make events can emit them", () => this.#emittersAreBack())]);
    await this.cluster.quiet();
    await this.within(SETTLE_LIMIT_MS, "jobs are left in the queue", () => this.#queueIsEmpty());
    this.none(await this.query("SELECT queue, error, history FROM _chimpbase_mesh_dead_letters"), "jobs among the dead letters");
    this.history.add(...(await this.query<Effect>(READ_EFFECTS_SQL)), ...(await this.query<Transition>(READ_AUDIT_SQL)));
    checkFencing(this, this.cluster.names);
    checkOmissions(this);
  }

  #emittersAreBack(): boolean {
    const emits = this.history.all("emit");
    const running = new Set(this.cluster.nodes.map(({ name }) => name));
    const emitters = new Set(emits.map(({ node }) => node).filter((node) => running.has(node)));
    const back = new Set(emits.filter(({ startedAt, error }) => startedAt > this.#calm.from && (error === null || error === "ROLLED_BACK")).map(({ node }) => node));
    return [...emitters].every((node) => back.has(node));
  }

  async #queueIsEmpty(): Promise<boolean> {
    const [count] = await this.query<{ count: string }>(
      "SELECT (SELECT count(*) FROM _chimpbase_mesh_jobs) + (SELECT count(*) FROM _chimpbase_mesh_deferred) AS count",
    );
    return Number(count!.count) === 0;
  }

  async close(): Promise<void> {
    this.#stopWatching();
    await this.cluster.close();
    // Where the scenario broke off it may be down.
    await this.postgres.start();
    await this.postgres.query("postgres", `DROP DATABASE ${this.#database} WITH (FORCE)`);
    await this.#role.drop();
  }
}
