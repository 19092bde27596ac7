import { hash, timingSafeEqual } from "node:crypto";
import { sameSecrets } from "./mesh-key.js";

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
    if (!sameSecrets(tokens, this.#known)) {
      this.#known = [...tokens];
      this.#digests = tokens.filter((token) => token !== "").map(digestOf);
    }
    return this.#digests;
  }
}

const digestOf = (token: string): Buffer => hash("sha256", token, "buffer");
