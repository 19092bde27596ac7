import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";
import type { GroupPatterns } from "./group-patterns.js";
import type { LaneSet } from "./lane-set.js";

export interface StraysOptions {
  readonly patterns: GroupPatterns;
  readonly lanes: LaneSet;
  readonly leaseMs: number;
  readonly log: Logger;
}

/** Patterns are affirmed once in a lease; one that nobody has affirmed for so many leases is abandoned. */
const ABANDONED_LEASES = 3;

/**
 * Jobs of patterns that no node has any more. A handler whose pattern was changed leaves them behind, and the old pattern is
 * remembered like that of a node that will be back. Nodes with other patterns of the group take those over that match
 * theirs. While a group has one set of patterns, as it almost always has, this costs no statement.
 */
export class Strays {
  readonly #options: StraysOptions;
  readonly #since = now();
  #comparedAt = -Infinity;

  constructor(options: StraysOptions) {
    this.#options = options;
  }

  /** Whose patterns the next look is to compare with those of this node: none, but once in a lease. */
  groupsToCompare(): readonly string[] {
    if (now() - this.#comparedAt < this.#options.leaseMs) return [];
    this.#comparedAt = now();
    return [...new Set(this.#options.lanes.patterns.map(({ group }) => group))];
  }

  /** Where a group has patterns that this node has not: shows whose are in use, and takes over. Returns lanes with jobs. */
  async adopt(): Promise<string[]> {
    const { patterns, lanes, leaseMs, log } = this.#options;
    const own = lanes.patterns;
    await patterns.affirm(own);
    // Before, nodes with those other patterns may not have found out yet that there are others, and to affirm theirs.
    const abandonedMs = ABANDONED_LEASES * leaseMs;
    if (now() - this.#since < abandonedMs) return [];
    const adopted = await patterns.adopt(own, abandonedMs);
    if (adopted.length > 0) log.warn("jobs of event patterns that no node has any more are taken over", { jobs: adopted.length });
    return [...new Set(adopted)];
  }
}
