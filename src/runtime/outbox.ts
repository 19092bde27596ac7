import { setImmediate as eventLoopTurn } from "node:timers/promises";
import type { Logger } from "../logger.js";
import type { Outbox, OutgoingEvent, OutgoingJob, Reach } from "../contract/messaging.js";
import type { Storage, Transaction } from "../contract/storage.js";
import { MeshError, MeshOverloadedError } from "../errors.js";
import { sqlState } from "../storage/connection-errors.js";
import { MessageWriter, type Written } from "./message-writer.js";
import { Notifier } from "./notifier.js";
import { encodeEvent, encodeJob, type Encoded } from "./outgoing.js";

export interface OutboxOptions {
  readonly storage: Storage;
  readonly nodeId: string;
  readonly log: Logger;
  /** Lanes of this process that have just got jobs: a shorter way than the NOTIFY to itself. */
  readonly onJobs?: (lanes: readonly string[]) => void;
  /** A lane has got a job that falls due in `delayMs`. */
  readonly onDelayed?: (lane: string, delayMs: number) => void;
}

export interface RunningOutbox extends Outbox {
  /** Tells the other nodes of jobs that are ready in these lanes and came there in another way. Never throws. */
  announce(lanes: readonly string[]): void;
  /** Flushes what is in flight, and refuses what comes after. */
  close(): Promise<void>;
}

export function createOutbox(options: OutboxOptions): RunningOutbox {
  return new GroupCommitOutbox(options);
}

interface Pending {
  readonly message: Encoded;
  readonly resolve: (result: number | string) => void;
  readonly reject: (error: unknown) => void;
}

/** Jobs that are due later are found by looks, which come as often as this, or as `pollIntervalMs` says. */
const SOON_MS = 10_000;
const BATCH_MESSAGES = 1_000;
const BATCH_BYTES = 4 * 1024 * 1024;
export const MAX_MESSAGES = 10_000;
export const MAX_BYTES = 64 * 1024 * 1024;

/**
 * One commit at a time: what is sent while one is under way shares the next (group commit, after DeWitt et al.,
 * "Implementation Techniques for Main Memory Database Systems", 1984). The first does not wait for company beyond its turn
 * of the event loop. One at a time also makes the order of calls the order of transactions, on which receivers rely.
 */
class GroupCommitOutbox implements RunningOutbox {
  readonly #options: OutboxOptions;
  readonly #writer: MessageWriter;
  readonly #notifier: Notifier;
  #pending: Pending[] = [];
  #messages = 0;
  #bytes = 0;
  #flushing: Promise<void> | undefined;
  #closed = false;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#notifier = new Notifier(options);
    this.#writer = new MessageWriter(options.storage, this.#notifier, options.nodeId);
  }

  emit(event: OutgoingEvent, reach: Reach, tx: Transaction | null = null): Promise<number> {
    return this.#send(() => encodeEvent(event, reach), tx) as Promise<number>;
  }

  enqueue(job: OutgoingJob, tx: Transaction | null = null): Promise<string> {
    return this.#send(() => encodeJob(job), tx) as Promise<string>;
  }

  announce(lanes: readonly string[]): void {
    this.#notifier.wake("none", lanes);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#flushing;
    await this.#notifier.close();
  }

  /** Not async: that would cost each message a promise, and three turns of the microtask queue. */
  #send(encode: () => Encoded, tx: Transaction | null): Promise<number | string> {
    try {
      const message = encode();
      if (this.#closed) throw new MeshError("the outbox is closed: this node is stopping", { code: "OUTBOX_CLOSED", status: 503, retryable: true });
      return tx === null ? this.#enlist(message) : this.#writeIn(tx, message);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The wake is registered first: where the caller does not wait, the transaction may be closed when the write is back. */
  async #writeIn(tx: Transaction, message: Encoded): Promise<number | string> {
    const done: { written?: Written } = {};
    tx.afterCommit(() => {
      if (done.written !== undefined) this.#announce(done.written);
    });
    done.written = await this.#writer.writeIn(tx, [message]);
    return done.written.results[0]!;
  }

  #enlist(message: Encoded): Promise<number | string> {
    if (this.#messages >= MAX_MESSAGES || this.#bytes + message.bytes > MAX_BYTES) throw this.#overloaded();
    this.#messages++;
    this.#bytes += message.bytes;
    return new Promise((resolve, reject) => {
      this.#pending.push({ message, resolve, reject });
      this.#flushing ??= this.#flush();
    });
  }

  /** Never rejects. */
  async #flush(): Promise<void> {
    await eventLoopTurn();
    while (this.#pending.length > 0) {
      await this.#commit(this.#takeBatch());
    }
    this.#flushing = undefined;
  }

  #takeBatch(): Pending[] {
    let bytes = 0;
    const end = this.#pending.findIndex(({ message }, index) => {
      bytes += message.bytes;
      return index === BATCH_MESSAGES || (bytes > BATCH_BYTES && index > 0);
    });
    return this.#pending.splice(0, end < 0 ? this.#pending.length : end);
  }

  /**
   * Where the statement itself was refused, nothing of it is written: halves are tried, until what cannot be written is
   * alone. Where the connection failed, it may have been written; a second try could do it twice, so the callers decide.
   */
  async #commit(batch: readonly Pending[]): Promise<void> {
    try {
      const written = await this.#writer.write(batch.map(({ message }) => message));
      this.#announce(written);
      this.#release(batch);
      batch.forEach(({ resolve }, index) => resolve(written.results[index]!));
    } catch (error) {
      if (batch.length === 1 || !isDataError(error)) {
        this.#release(batch);
        return batch.forEach(({ reject }) => reject(error));
      }
      const middle = batch.length >> 1;
      await this.#commit(batch.slice(0, middle));
      await this.#commit(batch.slice(middle));
    }
  }

  /** Before the callers go on, as they may send again at once. */
  #release(batch: readonly Pending[]): void {
    for (const { message } of batch) this.#bytes -= message.bytes;
    this.#messages -= batch.length;
  }

  /** Never throws: what it tells of is committed. */
  #announce({ events, lanes, delayed }: Written): void {
    this.#notifier.wake(events, lanes, [...delayed].filter(([, delayMs]) => delayMs < SOON_MS));
    try {
      if (lanes.length > 0) this.#options.onJobs?.(lanes);
      for (const [lane, delayMs] of delayed) this.#options.onDelayed?.(lane, delayMs);
    } catch (error) {
      this.#options.log.error("waking the workers of this node failed", { lanes, err: error });
    }
  }

  #overloaded(): MeshOverloadedError {
    return new MeshOverloadedError(
      `${this.#messages} events and jobs of ${this.#bytes} bytes wait for their commit; the limits are ${MAX_MESSAGES} and ${MAX_BYTES} bytes. Wait for emits before sending more`,
    );
  }
}

/** A constraint, trigger or limit refused what was written: class 21 to 23, 44, 54, or raised by a function. */
function isDataError(error: unknown): boolean {
  return /^(?:2[123]|44|54|P0)/.test(sqlState(error) ?? "");
}
