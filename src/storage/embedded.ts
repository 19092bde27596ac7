import type { Logger } from "../logger.js";

export interface EmbeddedPostgres {
  readonly url: string;
  stop(): Promise<void>;
}

/** `directory` true: a temporary one, deleted at stop. */
export function startEmbedded(_directory: true | string, _log: Logger): Promise<EmbeddedPostgres> {
  throw new Error("stub");
}
