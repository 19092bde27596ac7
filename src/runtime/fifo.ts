/** First in, first out, at constant cost: `Array.prototype.shift` moves what remains once an array is long. */
export class Fifo<T> {
  #in: T[] = [];
  #out: T[] = [];

  push(item: T): void {
    this.#in.push(item);
  }

  shift(): T | undefined {
    if (this.#out.length === 0) {
      if (this.#in.length === 0) return undefined;
      this.#out = this.#in.reverse();
      this.#in = [];
    }
    return this.#out.pop();
  }
}
