import { lookup } from "node:dns";
import { lookup as lookupAll } from "node:dns/promises";
import type { LookupFunction } from "node:net";
import type { AllowedPeers } from "./allowed-peers.js";

/**
 * Resolves names for connections to `url`, and keeps only addresses that `allowed` has in a range. The address that was
 * checked is the one that is connected to, so a name that changes its mind in between gains nothing.
 */
export function guardedLookup(allowed: AllowedPeers, url: string, resolve: typeof lookup = lookup): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, "");
      const usable = found.filter(({ address }) => allowed.allowsAddress(url, address));
      const [first] = usable;
      if (first === undefined) callback(new Error(`${hostname} resolves to ${listed(found)}, which mesh option allowedPeers does not allow`), "");
      else if (options.all === true) callback(null, usable);
      else callback(null, first.address, first.family);
    });
  };
}

/** Whether peers with the same list as this node would call `url`. A name that does not resolve is another matter. */
export async function isAllowedHere(allowed: AllowedPeers, url: string): Promise<boolean> {
  const verdict = allowed.judge(url);
  if (verdict !== "by-address") return verdict === "allowed";
  const found = await lookupAll(new URL(url).hostname, { all: true }).catch(() => []);
  return found.length === 0 || found.some(({ address }) => allowed.allowsAddress(url, address));
}

function listed(found: readonly { readonly address: string }[]): string {
  const addresses = found.slice(0, 3).map(({ address }) => address);
  return `${addresses.join(", ") || "no address"}${found.length > addresses.length ? ", …" : ""}`;
}
