import { toError } from "../errors.js";
import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";
import type { GroupPattern, GroupPatterns } from "./group-patterns.js";
import type { LaneSet } from "./lane-set.js";

export interface StraysOptions {
  readonly patterns: GroupPatterns;
  readonly lanes: LaneSet;
  readonly leaseMs: number;
  readonly log: Logger;
  /** Jobs have come into these lanes. */
  readonly onAdopted: (lanes: readonly string[]) => void;
}

/** How long a job has waited that is not left to nodes which may be gone. */
const WAITED_LEASES = 3;

/**
 * Jobs that wait for a pattern which no node may have any more. A handler whose pattern was changed leaves them behind, and
 * the old pattern is remembered like that of a node that will be back. So what waits for long under another pattern of a group
 * is taken by nodes with one that matches too, as any node of the group may. While its nodes have the same patterns, this
 * costs no statement.
 */
export class Strays {
  readonly #options: StraysOptions;
  #begun: readonly GroupPattern[] | undefined;
  #comparedAt = -Infinity;
  #tending: Promise<void> | undefined;
  #closed = false;

  constructor(options: StraysOptions) {
    this.#options = options;
  }

  /** Whose patterns the next look is to compare with those of this node: none, but once in a lease. */
  groupsToCompare(): readonly string[] {
    if (now() - this.#comparedAt < this.#options.leaseMs) return [];
    return [...new Set(this.#options.lanes.patterns.map(({ group }) => group))];
  }

  /**
   * After a look, which has compared these groups. Does not keep the next one waiting: it takes turns with the statements of
   * handlers for a connection.
   */
  tend(compared: readonly string[], hasOtherPatterns: boolean): void {
    if (compared.length > 0) this.#comparedAt = now();
    const begins = this.#begun !== this.#options.lanes.patterns;
    if (this.#closed || this.#tending !== undefined || !(begins || hasOtherPatterns)) return;
    this.#tending = this.#tend(begins, hasOtherPatterns)
      .catch((error: unknown) => this.#warn(error))
      .finally(() => (this.#tending = undefined));
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#tending;
  }

  /** From here on, events of these groups come to this node, as far as its patterns match. Where it fails, looks try again. */
  async begin(): Promise<void> {
    await this.#begin().catch((error: unknown) => this.#warn(error));
  }

  async #tend(begins: boolean, hasOtherPatterns: boolean): Promise<void> {
    if (begins) await this.#begin();
    if (hasOtherPatterns) await this.#adopt();
  }

  async #begin(): Promise<void> {
    const own = this.#options.lanes.patterns;
    // From here, not from the answer: a look while this is under way would say it again, later than others that begin meanwhile.
    this.#begun = own;
    try {
      if (own.length > 0) await this.#options.patterns.begin(own);
    } catch (error) {
      if (this.#begun === own) this.#begun = undefined;
      throw error;
    }
  }

  async #adopt(): Promise<void> {
    const { patterns, lanes, leaseMs, log, onAdopted } = this.#options;
    const adopted = await patterns.adopt(lanes.patterns, WAITED_LEASES * leaseMs);
    if (adopted.lanes.length === 0) return;
    log.warn("events that waited for other patterns of their group are taken over", { jobs: adopted.lanes.length });
    if (adopted.full) this.#comparedAt = -Infinity;
    onAdopted([...new Set(adopted.lanes)]);
    // Whoever began later than this node does not come after them.
    await this.#begin();
  }

  #warn(error: unknown): void {
    if (!this.#closed) this.#options.log.warn("event patterns could not be tended, will be tried again", { err: toError(error) });
  }
}
