import { randomBytes } from "node:crypto";
import { Program, freePorts } from "./program.js";
import type { Postgres } from "./postgres.js";
import type { Result } from "./scenario.js";
import { isForeign, type System } from "./systems.js";

export interface Sizes {
  readonly rounds: number;
  /** Of one measured stretch. */
  readonly roundMs: number;
  readonly quick: boolean;
}

/** The processes of one system in one scenario, with a database of their own. */
export interface Team {
  readonly system: System;
  readonly databaseUrl: string;
  readonly programs: readonly Program[];
}

type Roles = readonly string[];

/** What scenarios run on. What they start ends with the scenario. */
export class Bench {
  readonly sizes: Sizes;
  readonly postgres: Postgres;
  readonly #say: (line: string) => void;
  #teams: Team[] = [];
  #ended = false;

  constructor(sizes: Sizes, postgres: Postgres, say: (line: string) => void) {
    this.sizes = sizes;
    this.postgres = postgres;
    this.#say = say;
  }

  say(line: string): void {
    this.#say(line);
  }

  /** One process for each role, started in their order. Null, and a line that says why, where the system does not run here. */
  async team(system: System, roles: Roles, options: { readonly effects?: boolean } = {}): Promise<Team | null> {
    this.#checkGoing();
    const databaseUrl = this.postgres.databaseUrl();
    const programs: Program[] = [];
    const team = { system, databaseUrl, programs };
    // Before the database is there, so that a run that is broken off in between drops it.
    this.#teams.push(team);
    await this.postgres.createDatabase(databaseUrl);
    if (options.effects === true) await this.postgres.query(databaseUrl, "CREATE TABLE IF NOT EXISTS effects (i INTEGER NOT NULL)");
    const ports = await freePorts(roles.length);
    const nodes = ports.map((port, index) => ({ id: `node-${index}-${randomBytes(3).toString("hex")}`, port }));
    const shared = { databaseUrl, token: randomBytes(24).toString("hex"), nodes, variant: system.variant ?? "", effects: options.effects ?? false };
    try {
      for (const [index, role] of roles.entries()) programs.push(await Program.start(system.file, role, { ...shared, index }));
      return team;
    } catch (error) {
      if (!isForeign(system)) throw error;
      this.say(`skipped: ${system.name} does not start here: ${(error as Error).message.split("\n")[0]}`);
      await stopAll(team);
      return null;
    }
  }

  /** Teams of all systems that run here. */
  async teams(systems: readonly System[], roles: Roles, options: { readonly effects?: boolean } = {}): Promise<Team[]> {
    const teams: Team[] = [];
    for (const system of systems) {
      const team = await this.team(system, roles, options);
      if (team !== null) teams.push(team);
    }
    return teams;
  }

  /**
   * One figure of each team a round, in turn: each round begins with another one, and every second goes the other way round, so that none
   * always has the same one before it. A peer that fails is left out with all its figures, and a line says why.
   */
  async interleave<T>(teams: readonly Team[], measure: (team: Team, round: number) => Promise<T>): Promise<Map<Team, T[]>> {
    const figures = new Map<Team, T[]>(teams.map((team) => [team, []]));
    const failed = new Set<Team>();
    for (let round = 0; round < this.sizes.rounds; round++) {
      for (let turn = 0; turn < teams.length; turn++) {
        this.#checkGoing();
        const team = teams[(round + (round % 2 === 0 ? turn : teams.length - turn)) % teams.length]!;
        if (failed.has(team)) continue;
        try {
          figures.get(team)!.push(await measure(team, round));
        } catch (error) {
          if (!isForeign(team.system)) throw error;
          failed.add(team);
          figures.set(team, []);
          await stopAll(team);
          this.say(`left out: ${team.system.name}: ${(error as Error).message.split("\n")[0]}`);
        }
      }
    }
    return figures;
  }

  /** Ends all teams, and drops their databases. */
  async clear(): Promise<void> {
    const teams = this.#teams;
    this.#teams = [];
    await Promise.all(teams.map(stopAll));
    await Promise.all(teams.map(({ databaseUrl }) => this.postgres.dropDatabase(databaseUrl)));
  }

  /** Clears, and lets nothing begin that the run would still begin. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.clear();
  }

  #checkGoing(): void {
    if (this.#ended) throw new Error("the run was broken off");
  }
}

export function resultsOf<T>(figures: ReadonlyMap<Team, readonly T[]>, value: (figure: T) => number): Result[] {
  return [...figures].map(([{ system }, all]) => ({ system: system.name, part: system.part, values: all.map(value) }));
}

async function stopAll({ programs }: Team): Promise<void> {
  await Promise.all(programs.map((program) => program.stop()));
}
