import { consumersOf, groupPatterns, type Consumer } from "./consumers.js";
import type { GroupPattern } from "./group-patterns.js";
import type { HeldJob } from "./held-job.js";
import { Lane, baseLane, soloLane } from "./lane.js";

/** The lanes that this node serves, and by whom. A node claims from no other. */
export class LaneSet {
  readonly #nodeLimit: number;
  readonly #lanes = new Map<string, Lane>();
  readonly #consumers = new Set<Consumer>();
  #patterns: readonly GroupPattern[] | undefined;
  /** The last event of each lane, and who handles it: most lanes carry one. */
  readonly #routes = new Map<string, { readonly event: string | null; readonly consumers: readonly Consumer[] }>();

  constructor(nodeLimit: number) {
    this.#nodeLimit = nodeLimit;
  }

  get keys(): string[] {
    return [...this.#lanes.keys()];
  }

  /** What the groups of this node take: another array where that has changed. */
  get patterns(): readonly GroupPattern[] {
    return (this.#patterns ??= groupPatterns(this.#consumers));
  }

  all(): Iterable<Lane> {
    return this.#lanes.values();
  }

  get(key: string): Lane | undefined {
    return this.#lanes.get(key);
  }

  add(consumers: readonly Consumer[]): void {
    for (const consumer of consumers) this.#consumers.add(consumer);
    for (const key of keysOf(consumers)) this.#configure(key);
  }

  /** Returns what lanes without any consumer left had in their buffers. */
  remove(consumers: readonly Consumer[]): HeldJob[] {
    for (const consumer of consumers) this.#consumers.delete(consumer);
    return keysOf(consumers).flatMap((key) => this.#configure(key));
  }

  /** Whoever handles an event of a lane. */
  consumersOf(lane: string, event: string | null): readonly Consumer[] {
    const known = this.#routes.get(lane);
    if (known?.event === event) return known.consumers;
    const base = baseLane(lane);
    const group = this.#lanes.get(base)?.consumers[0]?.group ?? null;
    const consumers = consumersOf(this.#consumers, base, group, event);
    if (consumers.length > 0) this.#routes.set(lane, { event, consumers });
    return consumers;
  }

  #configure(key: string): HeldJob[] {
    this.#routes.clear();
    this.#patterns = undefined;
    const base = baseLane(key);
    const consumers = [...this.#consumers].filter((consumer) => consumer.lane === base);
    const lane = this.#lanes.get(key) ?? new Lane(key);
    if (consumers.length > 0) {
      lane.configure(consumers, this.#nodeLimit);
      this.#lanes.set(key, lane);
      return [];
    }
    this.#lanes.delete(key);
    return lane.buffer.splice(0);
  }
}

function keysOf(consumers: readonly Consumer[]): string[] {
  const bases = new Set(consumers.map((consumer) => consumer.lane));
  return [...bases].flatMap((base) => [base, soloLane(base)]);
}
