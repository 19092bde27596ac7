import type { Logger } from "../logger.js";
import type { Statement, Storage } from "../contract/storage.js";
import { addNews, encodeWake, WAKE_CHANNEL, type DelayedLane, type News, type Wake } from "./wake.js";

export interface NotifierOptions {
  readonly storage: Storage;
  readonly nodeId: string;
  readonly log: Logger;
}

/** Lanes beyond this many are left to their workers' polling. */
const MAX_LANES = 10_000;
const RETRY_MS = 250;
const OPTIONS = { answerTimeoutMs: 5_000, prepare: true };
const SQL = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload";

/**
 * Tells the other nodes that something was committed. One NOTIFY of its own at a time, for all that came while the last
 * one was under way, besides one that goes along with a commit. Always from a transaction that wrote nothing: a NOTIFY in
 * a writing one holds a lock of the whole server until its WAL is flushed. One that fails is sent again, as receivers
 * look by themselves only every few seconds.
 */
export class Notifier {
  readonly #options: NotifierOptions;
  readonly #lanes = new Set<string>();
  readonly #delayed = new Map<string, number>();
  #events: News = "none";
  #sending: Promise<void> | undefined;
  #accompanying: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: NotifierOptions) {
    this.#options = options;
  }

  /** To be called after the commit. Never throws, waits for nothing. */
  wake(events: News, lanes: Iterable<string>, delayed: Iterable<DelayedLane> = []): void {
    this.#add(events, lanes, delayed);
    this.#send();
  }

  /**
   * Has `send` send a NOTIFY along with the commit of the events that it tells of, which spares the round trip between them.
   * Returns what `send` does; null, and does nothing, where the last NOTIFY has not been answered yet.
   */
  accompany<T extends { readonly next: Promise<void> }>(events: News, send: (notice: Statement) => Promise<T>): Promise<T> | null {
    if (this.#accompanying !== undefined || this.#sending !== undefined) return null;
    const wake: Wake = { nodeId: this.#options.nodeId, events, lanes: [], delayed: [] };
    const sent = send(this.#notice(wake));
    const nothingToTell = (): void => undefined;
    this.#accompanying = sent.then(({ next }) => this.#ended(wake, next), nothingToTell).then(() => (this.#accompanying = undefined));
    return sent;
  }

  /** Sends what is left, once. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#send();
    await this.#accompanying;
    while (this.#sending !== undefined) await this.#sending;
  }

  #add(events: News, lanes: Iterable<string>, delayed: Iterable<DelayedLane>): void {
    this.#events = addNews(this.#events, events);
    for (const lane of lanes) if (this.#lanes.size < MAX_LANES) this.#lanes.add(lane);
    for (const [lane, delayMs] of delayed) {
      if (this.#delayed.size < MAX_LANES) this.#delayed.set(lane, Math.min(delayMs, this.#delayed.get(lane) ?? Infinity));
    }
  }

  #send(): void {
    if (this.#sending !== undefined || this.#retry !== undefined) return;
    const wake = this.#take();
    if (wake.events === "none" && wake.lanes.length === 0 && wake.delayed.length === 0) return;
    const { sql, params } = this.#notice(wake);
    this.#sending = this.#ended(wake, this.#options.storage.query(sql, params, OPTIONS)).then(() => {
      this.#sending = undefined;
      this.#send();
    });
  }

  #notice(wake: Wake): Statement {
    return { sql: SQL, params: [this.#options.storage.channel(WAKE_CHANNEL), encodeWake(wake)], ...OPTIONS };
  }

  async #ended(wake: Wake, sent: Promise<unknown>): Promise<void> {
    try {
      await sent;
    } catch (error) {
      this.#options.log.debug("mesh notify failed", { err: error });
      this.#putBack(wake);
    }
  }

  #take(): Wake {
    const wake = { nodeId: this.#options.nodeId, events: this.#events, lanes: [...this.#lanes], delayed: [...this.#delayed] };
    this.#events = "none";
    this.#lanes.clear();
    this.#delayed.clear();
    return wake;
  }

  #putBack(wake: Wake): void {
    if (this.#closed) return;
    this.#add(wake.events, wake.lanes, wake.delayed);
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#send();
    }, RETRY_MS);
  }
}
