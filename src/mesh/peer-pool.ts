import type { LookupFunction } from "node:net";
import type { Duplex } from "node:stream";
import { Client, Pool } from "undici";
import { MeshCallError } from "../errors.js";
import type { TlsTexts } from "../tls.js";
import { baseOf } from "./advertised-url.js";
import type { AllowedPeers } from "./allowed-peers.js";
import type { Candidate } from "./directory.js";
import { guardedLookup } from "./guarded-lookup.js";
import { markUndelivered } from "./undelivered.js";

export interface PeerPoolOptions {
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly tls: TlsTexts;
  /** Null: every peer. */
  readonly allowed: AllowedPeers | null;
}

export interface PeerPool {
  /** Of requests. */
  readonly path: string;
  readonly pool: Pool;
  /** Makes a connection of its own for `protocol`. Rejects where `signal` aborts, and with `UpgradeRefusedError` where the peer answers without one. */
  upgrade(protocol: string, headers: readonly string[], signal: AbortSignal): Promise<Duplex>;
}

/** A request for an upgrade was answered with something else. */
export class UpgradeRefusedError extends Error {}

/** undici has no code of its own for it. */
const isAnswer = ({ message }: Error): boolean => message === "bad upgrade";

/** Connections to a peer, made when they are needed. Throws `MeshCallError`, undelivered, for an address that must not be called. */
export function openPeerPool(candidate: Candidate, options: PeerPoolOptions): PeerPool {
  const { connections, connectTimeoutMs, tls, allowed } = options;
  const url = peerUrl(candidate);
  if (url === null) throw refused(candidate, `that is no http(s) URL: ${candidate.advertisedUrl} ${candidate.rpcPath}`);
  const lookup = lookupFor(candidate, url, allowed);
  const connect = { ...tls, ...lookup, timeout: connectTimeoutMs, minVersion: "TLSv1.2", rejectUnauthorized: true } as const;
  // The deadline of each call is what limits it: undici's own timeouts are off.
  const pool = new Pool(url.origin, { connections, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, connect });
  const path = url.pathname + url.search;
  const upgrade: PeerPool["upgrade"] = async (protocol, headers, signal) => {
    const client = new Client(url.origin, { headersTimeout: 0, bodyTimeout: 0, connect });
    try {
      const { socket } = await client.upgrade({ path, headers: [...headers], protocol, signal });
      return socket;
    } catch (error) {
      throw isAnswer(error as Error) ? new UpgradeRefusedError("the peer has answered without an upgrade", { cause: error }) : error;
    } finally {
      // With the upgrade the client has let go of the socket.
      void client.destroy().catch(() => undefined);
    }
  };
  return { path, pool, upgrade };
}

/** The directory leaves out peers that are refused: here is the last look before anything is sent. */
function lookupFor(candidate: Candidate, url: URL, allowed: AllowedPeers | null): { readonly lookup?: LookupFunction } {
  const verdict = allowed === null ? "allowed" : allowed.judge(url.href);
  if (verdict === "allowed" || allowed === null) return {};
  if (verdict === "by-address") return { lookup: guardedLookup(allowed, url.href) };
  throw refused(candidate, `that mesh option allowedPeers does not allow: ${url.origin}`);
}

function refused({ nodeId }: Candidate, why: string): MeshCallError {
  return markUndelivered(new MeshCallError(`mesh peer ${nodeId} advertises an address ${why}`, { nodeId }));
}

/** Where requests to a peer go, or null where its row holds no address. A path must not reach into the authority. */
function peerUrl({ advertisedUrl, rpcPath }: Candidate): URL | null {
  if (!rpcPath.startsWith("/") || !URL.canParse(advertisedUrl)) return null;
  const url = new URL(advertisedUrl);
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  const full = baseOf(url) + rpcPath;
  return URL.canParse(full) ? new URL(full) : null;
}
