import { hash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Logger } from "../logger.js";
import { now } from "../pipeline/deadline.js";

/** Whether a request shows one of the accepted tokens, in time that says nothing about any of them. */
export class TokenVerifier {
  readonly #tokens: () => readonly string[];
  #known: readonly string[] = [];
  #digests: readonly Buffer[] = [];

  /** `tokens` is asked at each request, so that a rotated secret takes effect at once. */
  constructor(tokens: () => readonly string[]) {
    this.#tokens = tokens;
  }

  /** `header` as Node gives it: a header sent twice arrives joined by a comma, and matches nothing. */
  accepts(header: string | readonly string[] | undefined): boolean {
    if (typeof header !== "string" || header === "") return false;
    const shown = digestOf(header);
    let accepted = false;
    // No early end: all digests are compared, and have one length.
    for (const digest of this.#accepted()) accepted = timingSafeEqual(digest, shown) || accepted;
    return accepted;
  }

  #accepted(): readonly Buffer[] {
    const tokens = this.#tokens();
    if (!sameTokens(tokens, this.#known)) {
      this.#known = [...tokens];
      this.#digests = tokens.filter((token) => token !== "").map(digestOf);
    }
    return this.#digests;
  }
}

function sameTokens(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((token, index) => token === b[index]));
}

const digestOf = (token: string): Buffer => hash("sha256", token, "buffer");

const WARN_EVERY_MS = 60_000;

/** Says that callers are refused, at once and then once a minute: anyone can make it happen, as often as they like. */
export class RefusedTokens {
  #refused = 0;
  #quietUntil = 0;

  note({ socket }: IncomingMessage, log: Logger): void {
    this.#refused++;
    if (now() < this.#quietUntil) return;
    log.warn("mesh rpc refused: its token is missing or none that meshToken names; do all nodes share the secret?", { from: socket.remoteAddress, refused: this.#refused });
    this.#refused = 0;
    this.#quietUntil = now() + WARN_EVERY_MS;
  }
}
