import { randomBytes } from "node:crypto";
import { Program, freePorts } from "./program.js";
import type { Postgres } from "./postgres.js";
import type { System } from "./systems.js";

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
    const databaseUrl = await this.postgres.createDatabase();
    if (options.effects === true) await this.postgres.query(databaseUrl, "CREATE TABLE IF NOT EXISTS effects (i INTEGER NOT NULL)");
    const ports = await freePorts(roles.length);
    const nodes = ports.map((port, index) => ({ id: `node-${index}-${randomBytes(3).toString("hex")}`, port }));
    const shared = { databaseUrl, token: randomBytes(24).toString("hex"), nodes, variant: system.variant ?? "", effects: options.effects ?? false };
    const programs: Program[] = [];
    const team = { system, databaseUrl, programs };
    this.#teams.push(team);
    try {
      for (const [index, role] of roles.entries()) programs.push(await Program.start(system.file, role, { ...shared, index }));
      return team;
    } catch (error) {
      if (system.part === "ours") throw error;
      this.say(`skipped: ${system.name} does not start here: ${(error as Error).message.split("\n")[0]}`);
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
   * One figure of each team a round, in turn, beginning with another one each time, so that none always has the same neighbour. A peer
   * that fails is left out from then on, and a line says why.
   */
  async interleave<T>(teams: readonly Team[], measure: (team: Team, round: number) => Promise<T>): Promise<Map<Team, T[]>> {
    const figures = new Map<Team, T[]>(teams.map((team) => [team, []]));
    const failed = new Set<Team>();
    for (let round = 0; round < this.sizes.rounds; round++) {
      for (let turn = 0; turn < teams.length; turn++) {
        const team = teams[(round + turn) % teams.length]!;
        if (failed.has(team)) continue;
        try {
          figures.get(team)!.push(await measure(team, round));
        } catch (error) {
          if (team.system.part === "ours") throw error;
          failed.add(team);
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
    await Promise.all(teams.flatMap(({ programs }) => programs.map((program) => program.stop())));
    for (const { databaseUrl } of teams) await this.postgres.dropDatabase(databaseUrl);
  }
}
