import { createHmac, createSecretKey, timingSafeEqual, type KeyObject } from "node:crypto";

const ID_TEXT = "chimpbase-mesh-key-id";
const ID_BYTES = 8;

/** A shared secret as a key of signatures. Its id names it and does not give it away. */
export class MeshKey {
  /** 16 hex digits: the first 8 bytes of HMAC-SHA256(secret, "chimpbase-mesh-key-id"). */
  readonly id: string;
  readonly #key: KeyObject;

  constructor(secret: string) {
    this.#key = createSecretKey(secret, "utf8");
    this.id = createHmac("sha256", this.#key).update(ID_TEXT).digest().subarray(0, ID_BYTES).toString("hex");
  }

  /** HMAC-SHA256 in base64url. */
  sign(text: string): string {
    return createHmac("sha256", this.#key).update(text).digest("base64url");
  }

  /** In time that says nothing about the right signature. Compares what was sent, so that each text has one signature only. */
  verifies(text: string, signature: string): boolean {
    return sameInConstantTime(this.sign(text), signature);
  }
}

/** The secrets that `meshToken` names, as keys. */
export class KeyRing {
  /** The first of `secrets`; undefined where there is none. */
  readonly signing: MeshKey | undefined;
  readonly #keys: readonly MeshKey[];

  constructor(secrets: readonly string[]) {
    this.#keys = secrets.filter((secret) => secret !== "").map((secret) => new MeshKey(secret));
    this.signing = this.#keys[0];
  }

  find(id: string): MeshKey | undefined {
    return this.#keys.find((key) => key.id === id);
  }
}

/** Of two texts of one length; texts of different lengths differ. */
export function sameInConstantTime(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.byteLength === right.byteLength && timingSafeEqual(left, right);
}
