import { randomBytes } from "node:crypto";

const BOOT_BYTES = 12;

/** Request ids of one host: unique over all hosts by a random part made once, which costs a call less than a random id of its own. */
export class RequestIds {
  readonly #boot = randomBytes(BOOT_BYTES).toString("base64url");
  #count = 0;

  next(): string {
    return `${this.#boot}-${(++this.#count).toString(36)}`;
  }
}
