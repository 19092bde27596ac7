import { now } from "../pipeline/deadline.js";
import { isAtMost } from "./rpc-codec.js";
import { LONGEST_ON_WIRE } from "./wire-frames.js";

/** How long one large answer tells that others may follow. */
export const EXPECTED_FOR_MS = 60_000;

/** Which actions of a peer have lately given answers that are long for a wire, where they hold up all others. */
export class LargeAnswers {
  readonly #until = new Map<string, number>();

  note(action: string, answer: Buffer | string): void {
    const isLarge = typeof answer === "string" ? !isAtMost(answer, LONGEST_ON_WIRE) : answer.byteLength > LONGEST_ON_WIRE;
    if (isLarge) this.#until.set(action, now() + EXPECTED_FOR_MS);
  }

  expects(action: string): boolean {
    const until = this.#until.size === 0 ? undefined : this.#until.get(action);
    if (until === undefined) return false;
    if (now() < until) return true;
    this.#until.delete(action);
    return false;
  }
}
