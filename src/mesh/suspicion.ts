import { now } from "../pipeline/deadline.js";

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 5_000;
/** A heartbeat that a dead peer had sent may be written so much later, by a clock that is known here a little late. */
const LAST_BREATH_MS = 100;

interface Suspect {
  /** Monotonic; the pause is over from here on, the strikes are not forgotten. */
  until: number;
  strikes: number;
  /** Database clock, as well as it is known here. */
  since: number;
}

/**
 * Peers that failed a call: avoided until their next heartbeat or a back-off of 1 s, 2 s, 4 s, then 5 s. `epoch` changes
 * whenever the set of avoided peers may have, so that filtered lists can be kept in between.
 */
export class Suspicion {
  readonly #leastMs: number;
  readonly #suspects = new Map<string, Suspect>();
  /** End of the pause that ends first; Infinity while nobody is avoided. */
  #nextEnd = Infinity;
  #epoch = 0;

  /** `leastMs`: shortest pause. */
  constructor(leastMs: number) {
    this.#leastMs = leastMs;
  }

  /** True for a peer that was not avoided until now. */
  mark(nodeId: string, databaseNowMs: number): boolean {
    this.#settle();
    const suspect = this.#suspects.get(nodeId) ?? { until: 0, strikes: 0, since: 0 };
    const fresh = suspect.until === 0;
    // Calls that were under way together fail together: they are one strike.
    if (fresh) suspect.strikes++;
    suspect.until = now() + Math.max(this.#leastMs, Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (suspect.strikes - 1)));
    suspect.since = databaseNowMs;
    this.#suspects.set(nodeId, suspect);
    this.#nextEnd = Math.min(this.#nextEnd, suspect.until);
    if (fresh) this.#epoch++;
    return fresh;
  }

  /** The peer's heartbeat was written at `heartbeatMs` of the database's clock. */
  heard(nodeId: string, heartbeatMs: number): void {
    const suspect = this.#suspects.get(nodeId);
    if (suspect !== undefined && heartbeatMs > suspect.since + LAST_BREATH_MS) this.forget(nodeId);
  }

  forget(nodeId: string): void {
    if (!this.#suspects.delete(nodeId)) return;
    this.#epoch++;
    this.#findNextEnd();
  }

  /** A change of this number means that filtered lists are stale. */
  epoch(): number {
    this.#settle();
    return this.#epoch;
  }

  /** Nobody has failed since its last heartbeat: the common case, and free of clock readings. */
  get none(): boolean {
    return this.#suspects.size === 0;
  }

  avoids(nodeId: string): boolean {
    const suspect = this.#suspects.get(nodeId);
    return suspect !== undefined && suspect.until !== 0;
  }

  /** Ends the pauses that are over. */
  #settle(): void {
    if (this.#nextEnd === Infinity) return;
    const at = now();
    if (at < this.#nextEnd) return;
    for (const suspect of this.#suspects.values()) if (suspect.until <= at) suspect.until = 0;
    this.#epoch++;
    this.#findNextEnd();
  }

  #findNextEnd(): void {
    this.#nextEnd = Infinity;
    for (const { until } of this.#suspects.values()) if (until !== 0) this.#nextEnd = Math.min(this.#nextEnd, until);
  }
}
