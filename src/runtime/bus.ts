import type { Logger } from "../logger.js";
import type { EventBus, IncomingEvent, SubscribeOptions } from "../contract/messaging.js";
import type { Storage } from "../contract/storage.js";

export interface EventBusOptions {
  readonly storage: Storage;
  readonly nodeId: string;
  readonly log: Logger;
  /** Lanes that somebody has added jobs to. */
  readonly onJobs?: (lanes: readonly string[]) => void;
}

export class PostgresListenEventBus implements EventBus {
  constructor(_options: EventBusOptions) {
    throw new Error("stub");
  }
  start(): Promise<void> { throw new Error("stub"); }
  stop(): Promise<void> { throw new Error("stub"); }
  subscribe(_pattern: string, _handler: (event: IncomingEvent) => unknown, _options?: SubscribeOptions): () => void { throw new Error("stub"); }
  /** False while LISTEN is not in force; deliveries then come by polling. */
  get live(): boolean { throw new Error("stub"); }
}
