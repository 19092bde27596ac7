import type { IncomingMessage } from "node:http";
import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";

const WARN_EVERY_MS = 60_000;

interface Tally {
  refused: number;
  quietUntil: number;
}

/**
 * Says that callers are refused, and why: for each of a handful of reasons at once, and then once a minute. Anyone can
 * make it happen, as often as they like.
 */
export class RefusalLog {
  readonly #tallies = new Map<string, Tally>();

  /** `attributes` must hold nothing secret, and no signature. */
  note({ socket }: IncomingMessage, reason: string, log: Logger, attributes?: Readonly<Record<string, unknown>>): void {
    const tally = this.#tallies.get(reason) ?? { refused: 0, quietUntil: 0 };
    this.#tallies.set(reason, tally);
    tally.refused++;
    if (now() < tally.quietUntil) return;
    log.warn(`mesh rpc refused: ${reason}`, { from: socket.remoteAddress, refused: tally.refused, ...attributes });
    tally.refused = 0;
    tally.quietUntil = now() + WARN_EVERY_MS;
  }
}
