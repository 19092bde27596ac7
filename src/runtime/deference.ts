/** Longest wait of a node that others have forestalled. */
const LONGEST_MS = 8;

/**
 * Who goes first where all nodes are told of the same jobs. Of those who claim at once one gets the job: a node that came too
 * late lets others go first for 1 ms the next time, for twice as long after each further time, and for no time once it has got one again.
 */
export class Deference {
  readonly #onOver: (lanes: readonly string[]) => void;
  /** Lanes of which all were told since their last claim here. */
  readonly #told = new Set<string>();
  /** By lane: how often in a row others had taken what all were told of. */
  readonly #late = new Map<string, number>();
  readonly #waiting = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** `onOver` gets the lanes in which others have had their time. */
  constructor(onOver: (lanes: readonly string[]) => void) {
    this.#onOver = onOver;
  }

  /** All nodes have been told of these lanes. Returns those to claim from at once. */
  hear(lanes: readonly string[]): readonly string[] {
    for (const lane of lanes) this.#told.add(lane);
    if (this.#late.size === 0 || this.#closed) return lanes;
    const late = lanes.filter((lane) => this.#late.has(lane));
    for (const lane of late) this.#waiting.add(lane);
    if (late.length > 0) this.#timer ??= setTimeout(() => this.#over(), this.#waitMs(late));
    return lanes.filter((lane) => !this.#late.has(lane));
  }

  /** A claim from these lanes is sent. Returns those of which all were told. */
  claiming(lanes: readonly string[]): readonly string[] {
    return lanes.filter((lane) => this.#told.delete(lane));
  }

  /** A claim has brought jobs of the lanes `got`, and might have of those that all were told of. */
  claimed(got: ReadonlySet<string>, told: readonly string[]): void {
    for (const lane of got) this.#late.delete(lane);
    for (const lane of told) if (!got.has(lane)) this.#late.set(lane, (this.#late.get(lane) ?? 0) + 1);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #waitMs(lanes: readonly string[]): number {
    return Math.min(LONGEST_MS, ...lanes.map((lane) => 2 ** (this.#late.get(lane)! - 1)));
  }

  #over(): void {
    this.#timer = undefined;
    const lanes = [...this.#waiting];
    this.#waiting.clear();
    this.#onOver(lanes);
  }
}
