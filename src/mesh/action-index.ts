import type { Candidate } from "./directory.js";
import type { Suspicion } from "./suspicion.js";

interface Entry {
  readonly all: readonly Candidate[];
  /** `all` without suspects, as of `epoch`. */
  usable: readonly Candidate[];
  epoch: number;
}

const NOBODY: readonly Candidate[] = Object.freeze([]);

/**
 * Who can be called for what. Lists are replaced, never changed, and ordered by node id: a caller may hold on to one,
 * and round-robin steps through the same order everywhere.
 */
export class ActionIndex {
  readonly #suspicion: Suspicion;
  readonly #entries = new Map<string, Entry>();

  constructor(suspicion: Suspicion) {
    this.#suspicion = suspicion;
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Where every candidate is suspect, all of them: a try that may fail beats a refusal that must. */
  candidates(name: string): readonly Candidate[] {
    const entry = this.#entries.get(name);
    if (entry === undefined) return NOBODY;
    if (this.#suspicion.none) return entry.all;
    const epoch = this.#suspicion.epoch();
    if (entry.epoch !== epoch) {
      const usable = entry.all.filter(({ nodeId }) => !this.#suspicion.avoids(nodeId));
      entry.usable = usable.length === 0 ? entry.all : usable;
      entry.epoch = epoch;
    }
    return entry.usable;
  }

  /** Moves one peer from its old state to its new one; null stands for "cannot be called". */
  replace(nodeId: string, before: Offer | null, after: Offer | null): void {
    const moved = before?.candidate !== after?.candidate;
    if (!moved && before?.names === after?.names) return;
    for (const name of before?.names ?? []) if (moved || after?.names.has(name) !== true) this.#remove(name, nodeId);
    if (after === null) return;
    for (const name of after.names) if (moved || before?.names.has(name) !== true) this.#add(name, after.candidate);
  }

  #add(name: string, candidate: Candidate): void {
    const others = this.#entries.get(name)?.all ?? NOBODY;
    this.#set(name, others.toSpliced(placeOf(candidate.nodeId, others), 0, candidate));
  }

  #remove(name: string, nodeId: string): void {
    const rest = this.#entries.get(name)?.all.filter((candidate) => candidate.nodeId !== nodeId) ?? NOBODY;
    if (rest.length === 0) this.#entries.delete(name);
    else this.#set(name, rest);
  }

  #set(name: string, all: readonly Candidate[]): void {
    this.#entries.set(name, { all, usable: all, epoch: -1 });
  }
}

/** Where a node belongs in a list by node id. To sort at each addition would make thousands of peers in one read seconds of work. */
function placeOf(nodeId: string, among: readonly Candidate[]): number {
  let [from, to] = [0, among.length];
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (among[middle]!.nodeId < nodeId) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** A peer that can be called, with the names of its services and actions. */
export interface Offer {
  readonly candidate: Candidate;
  readonly names: ReadonlySet<string>;
}
