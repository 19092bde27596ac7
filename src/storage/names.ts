import { createHash } from "node:crypto";

const MAX_BYTES = 63;
const PLAIN = /^[\x21-\x7e]*$/;

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * Channels are shared by the whole database, hence the schema in their names. It cannot hold a colon, so two schemas
 * never make the same name. What is too long for Postgres, or not plain ASCII, becomes a hash.
 */
export function channelName(schema: string, name: string): string {
  const full = `chimpbase:${schema}:${name}`;
  if (full.length <= MAX_BYTES && PLAIN.test(full)) return full;
  return `chimpbase:#${createHash("sha256").update(full).digest("hex").slice(0, 48)}`;
}

/** A key for advisory locks: 64 signed bits, as Postgres reads them. */
export function advisoryKey(purpose: string, schema: string): string {
  return createHash("sha256").update(`@chimpbase/mesh ${purpose}:${schema}`).digest().readBigInt64BE(0).toString();
}
