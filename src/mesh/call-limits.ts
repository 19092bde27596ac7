import { SendQueue } from "./send-queue.js";

export interface CallLimitsOptions {
  /** Calls of one action under way at a time, however soon they are answered. */
  readonly most: number;
  /** Called whenever no call waits any more. */
  readonly onIdle: () => void;
}

/** By so many late calls must exceed those of the same action that were answered, before it is limited. */
export const MANY_LATE = 64;
/** Calls under way at a time when a limit begins. */
export const LIMITED_TO = 64;

/**
 * Holds back calls of actions that a peer answers hardly ever in time while its event loop is idle, as where handlers wait for the
 * connections of a pool: more of them would die there, and take with them those behind. The limit follows what is answered in time, and
 * goes when no call is under way. Without that evidence there is none: what is slow by intent, as long polls are, is left alone.
 */
export class CallLimits {
  readonly #options: CallLimitsOptions;
  /** By action: late ones less answered ones, where that is above 0. */
  readonly #late = new Map<string, number>();
  readonly #queues = new Map<string, SendQueue>();

  constructor(options: CallLimitsOptions) {
    this.#options = options;
  }

  /** Where calls of the action wait for their turn; undefined where they need not. */
  of(action: string): SendQueue | undefined {
    return this.#queues.size === 0 ? undefined : this.#queues.get(action);
  }

  /** Calls that wait for their turn. */
  get waiting(): number {
    let waiting = 0;
    for (const queue of this.#queues.values()) waiting += queue.waiting;
    return waiting;
  }

  noteAnswered(action: string): void {
    const late = this.#late.size === 0 ? undefined : this.#late.get(action);
    if (late === undefined) return;
    if (late === 1) this.#late.delete(action);
    else this.#late.set(action, late - 1);
  }

  /** A call that was sent has got no answer in its time. */
  noteLate(action: string): void {
    const late = (this.#late.get(action) ?? 0) + 1;
    if (late < MANY_LATE) return void this.#late.set(action, late);
    this.#late.delete(action);
    if (!this.#queues.has(action)) this.#limit(action);
  }

  #limit(action: string): void {
    const { most, onIdle } = this.#options;
    this.#queues.set(action, new SendQueue({
      atOnce: LIMITED_TO,
      most,
      onIdle: () => {
        this.#queues.delete(action);
        onIdle();
      },
    }));
  }
}
