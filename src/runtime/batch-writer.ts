import { setImmediate as eventLoopTurn, setTimeout as sleep } from "node:timers/promises";
import { toError } from "../errors.js";
import type { Logger } from "../logger.js";
import { answered } from "./answer-limit.js";
import { backOffMs } from "../back-off.js";

const MAX_BATCH = 500;
const ANSWER_LIMIT_MS = 10_000;

/** `repeated`: an earlier try may have been carried out, with its answer lost. */
export type WriteBatch<T> = (items: readonly T[], repeated: boolean) => Promise<void>;

/**
 * Writes items in batches: at once when idle, and while one batch is under way the next gathers. A batch that fails is
 * tried again until it is written; it is given up only when the writer is closed.
 */
export class BatchWriter<T> {
  readonly #what: string;
  readonly #write: WriteBatch<T>;
  readonly #log: Logger;
  readonly #closing = new AbortController();
  #waiting: T[] = [];
  #running: Promise<void> | undefined;

  constructor(what: string, log: Logger, write: WriteBatch<T>) {
    this.#what = what;
    this.#log = log;
    this.#write = write;
  }

  add(item: T): void {
    this.#waiting.push(item);
    this.#running ??= this.#run();
  }

  /** Resolves when all that was added is written, or given up. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  /** Waits up to `limitMs` for what is to be written, and gives up the rest. */
  async close(limitMs: number): Promise<void> {
    const limit = setTimeout(() => this.#closing.abort(), limitMs);
    await this.idle();
    clearTimeout(limit);
    this.#closing.abort();
  }

  async #run(): Promise<void> {
    await eventLoopTurn();
    while (this.#waiting.length > 0) await this.#writeUntilDone(this.#waiting.splice(0, MAX_BATCH));
    this.#running = undefined;
  }

  async #writeUntilDone(items: readonly T[]): Promise<void> {
    for (let failures = 1; ; failures++) {
      try {
        return await answered(this.#write(items, failures > 1), ANSWER_LIMIT_MS);
      } catch (error) {
        if (this.#closing.signal.aborted) return this.#giveUp(items.length, error);
        if (failures === 1) this.#log.warn(`${this.#what} of jobs failed, will be repeated`, { jobs: items.length, err: toError(error) });
      }
      await sleep(backOffMs(failures), undefined, { signal: this.#closing.signal }).catch(() => undefined);
    }
  }

  #giveUp(jobs: number, error: unknown): void {
    this.#log.warn(`${this.#what} of jobs given up; they return when their leases end`, { jobs, err: toError(error) });
  }
}
