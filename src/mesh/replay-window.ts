const WORD = 32;
const WIDTH = 16_384;

/**
 * Which numbers of a rising count have been seen: the highest, and a bitmap of those behind it, kept in a ring of words so
 * that moving on clears whole words and shifts nothing (RFC 6479). What lies left of the window counts as seen.
 */
export class ReplayWindow {
  readonly #width: number;
  readonly #words: Uint32Array;
  #highest = 0;

  /** `width`: how far behind the highest a number may come and still be new; a multiple of 32. Default 16384. */
  constructor(width: number = WIDTH) {
    this.#width = width;
    // One word more, since a window that begins within a word ends within another.
    this.#words = new Uint32Array(width / WORD + 1);
  }

  /** True for a number that comes for the first time; it is seen from here on. Whole numbers from 0 to 2^53 - 1. */
  take(number: number): boolean {
    if (number > this.#highest) this.#moveTo(number);
    else if (this.#highest - number >= this.#width) return false;
    const at = wordOf(number) % this.#words.length;
    const bit = 1 << number % WORD;
    const word = this.#words[at]!;
    if ((word & bit) !== 0) return false;
    this.#words[at] = word | bit;
    return true;
  }

  #moveTo(number: number): void {
    const { length } = this.#words;
    const from = wordOf(this.#highest);
    const steps = Math.min(length, wordOf(number) - from);
    for (let step = 1; step <= steps; step++) this.#words[(from + step) % length] = 0;
    this.#highest = number;
  }
}

const wordOf = (number: number): number => Math.floor(number / WORD);
