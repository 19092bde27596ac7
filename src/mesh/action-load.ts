import type { DeadlineView } from "../contract/registration.js";

/** So few requests of an action are no crowd, however long they take. */
export const CROWD = 64;
/** With fewer under way than this a request takes its own time, and waits for no other. */
const CALM = 32;
/** Requests that end in one look at the pace. */
const LOOK = 32;
/** Weight of the newest in the mean time of a calm request. */
const NEWEST = 0.1;

/**
 * How long a request of one action would wait for what the others hold, such as connections of a pool, while the event loop is
 * idle. Little's law tells it: with L under way and one ended every g ms, the newest takes L·g. What the action takes in calm times is
 * no wait. It counts only once requests of a crowd have died of it: others that are many and slow, as long polls, may be so by intent.
 */
export class ActionLoad {
  #underWay = 0;
  #calmMs: number | null = null;
  #endedLate = false;
  /** Of the look under way: when it began, on the clock of `now()`, and how many have ended since. */
  #lookFrom: number | null = null;
  #ended = 0;
  /** From the end of one to that of the next in a crowd, in ms; null where that is not known. */
  #gapMs: number | null = null;

  /** How long a request that comes now would wait, as far as is known. */
  get expectedWaitMs(): number {
    if (!this.#endedLate || this.#gapMs === null) return 0;
    return Math.max(0, this.#underWay * this.#gapMs - (this.#calmMs ?? 0));
  }

  /** Returns whether there is calm, to be told at the end. */
  begin(): boolean {
    return this.#underWay++ < CALM;
  }

  /** `at`: of the end, on the clock of `now()`. */
  end(wasCalm: boolean, beganAt: number, at: number, deadline: DeadlineView): void {
    if (wasCalm) this.#learnCalm(at - beganAt);
    if (this.#underWay-- >= CROWD) this.#note(at, deadline);
    else if (this.#lookFrom !== null) this.#disperse();
  }

  #learnCalm(tookMs: number): void {
    this.#calmMs = this.#calmMs === null ? tookMs : this.#calmMs + (tookMs - this.#calmMs) * NEWEST;
  }

  #note(at: number, deadline: DeadlineView): void {
    if (deadline.remainingMs() <= 0) this.#endedLate = true;
    if (this.#lookFrom === null) {
      this.#lookFrom = at;
      return;
    }
    // Those that end in one turn of the event loop have the same time: the look goes on to the next turn.
    if (++this.#ended < LOOK || at <= this.#lookFrom) return;
    this.#gapMs = (at - this.#lookFrom) / this.#ended;
    this.#lookFrom = at;
    this.#ended = 0;
  }

  #disperse(): void {
    this.#lookFrom = this.#gapMs = null;
    this.#ended = 0;
    this.#endedLate = false;
  }
}
