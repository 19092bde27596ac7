/** A power of two. */
const SLOTS = 1024;

/**
 * Values under ids that rise, for those that come and go by the hundred thousand: the newest 1024 ids have a slot each, and those that
 * are still there when their slot is wanted again move to a map. As long as these are few, they cost no collection.
 *
 * A `Map` alone would do, but for the garbage it makes. V8's links every table that it has outgrown to the next one: once a dead table has
 * grown old, it keeps all later ones, and what they held, through each collection of young objects.
 */
export class IdTable<Value extends object> {
  readonly #values = new Array<Value | undefined>(SLOTS).fill(undefined);
  readonly #ids = new Float64Array(SLOTS);
  readonly #older = new Map<number, Value>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** `id`: a whole number that has not been used before. */
  add(id: number, value: Value): void {
    const slot = id & (SLOTS - 1);
    const before = this.#values[slot];
    if (before !== undefined) this.#older.set(this.#ids[slot]!, before);
    this.#values[slot] = value;
    this.#ids[slot] = id;
    this.#size++;
  }

  /** Takes the value of `id` out; undefined where there is none. */
  take(id: number): Value | undefined {
    const slot = id & (SLOTS - 1);
    const isHere = this.#ids[slot] === id;
    const value = isHere ? this.#values[slot] : this.#older.get(id);
    if (value === undefined) return undefined;
    if (isHere) this.#values[slot] = undefined;
    else this.#older.delete(id);
    this.#size--;
    return value;
  }

  /** Takes all out, in the order of their ids. */
  takeAll(): [id: number, value: Value][] {
    const all: [number, Value][] = [...this.#older];
    for (let slot = 0; slot < SLOTS; slot++) {
      const value = this.#values[slot];
      if (value !== undefined) all.push([this.#ids[slot]!, value]);
    }
    this.#older.clear();
    this.#values.fill(undefined);
    this.#size = 0;
    return all.sort(([a], [b]) => a - b);
  }
}
