import { isNormalPath } from "./advertised-url.js";
import { isObject, parseObject } from "./json-object.js";
import type { Meta } from "../contract/context.js";

/** Largest `metadata_json` that a node writes or reads, in bytes. */
export const METADATA_LIMIT = 64 * 1024;

/** Key of `metadata_json` under which nodes tell each other what the registry's columns do not hold. */
export const MESH_KEY = "$mesh";

/** What stands under `$mesh`. Every part may be missing: a foreign implementation need not write it. */
export interface MeshMetadata {
  readonly protocol: number;
  /** Grows with every change of URL, services or draining, so that a hint can be told from old news. */
  readonly rev: number;
  readonly transport: "http" | "local-only";
  readonly rpcPath: string;
  readonly draining: boolean;
  /** It signs, and takes signed requests only. Left out where it takes tokens. */
  readonly auth?: "signed";
  /** Version of the wires that it takes. Left out where it takes none. */
  readonly wire?: number;
}

export const PROTOCOL = 1;

/** Version of wires, as it also stands in their name. */
export const WIRE_VERSION = 1;

export const DEFAULT_RPC_PATH = "/__chimpbase/mesh/rpc";

/** A copy of the user's `meta` as it will stand in the row, or what is wrong with it. */
export function checkMeta(meta: unknown): { readonly meta: Meta } | { readonly fault: string } {
  const json = toJson(meta);
  if (json === null) return { fault: "cannot be written as JSON" };
  if (!json.startsWith("{")) return { fault: "must be a JSON object" };
  if (Buffer.byteLength(json) > METADATA_LIMIT - 1024) return { fault: `is larger than ${METADATA_LIMIT - 1024} bytes of JSON` };
  const copy = JSON.parse(json) as Meta;
  if (Object.hasOwn(copy, MESH_KEY)) return { fault: `must not hold the key "${MESH_KEY}": the mesh's own` };
  return { meta: copy };
}

function toJson(value: unknown): string | null {
  try {
    return JSON.stringify(value) ?? null;
  } catch {
    return null;
  }
}

/** A peer's `metadata_json`, taken apart. */
export interface PeerMetadata {
  /** Without `$mesh`. */
  readonly user: Meta;
  readonly rev: number | null;
  /** Null: the row gives a path that no request may be sent to. */
  readonly rpcPath: string | null;
  readonly localOnly: boolean;
  readonly draining: boolean;
  readonly signed: boolean;
  readonly wire: boolean;
  readonly cpuLoad: number;
}

/** Null where the text is no JSON object. What a foreign row leaves out, or gets wrong, reads as its default. */
export function parseMetadata(json: string): PeerMetadata | null {
  const parsed = parseObject(json);
  if (parsed === null) return null;
  const { [MESH_KEY]: own, ["__proto__"]: _, ...user } = parsed;
  const mesh = isObject(own) ? own : {};
  return {
    user,
    rev: typeof mesh["rev"] === "number" ? mesh["rev"] : null,
    rpcPath: readRpcPath(mesh["rpcPath"] ?? DEFAULT_RPC_PATH),
    localOnly: mesh["transport"] === "local-only",
    draining: mesh["draining"] === true,
    signed: mesh["auth"] === "signed",
    wire: mesh["wire"] === WIRE_VERSION,
    cpuLoad: clampLoad(user["cpuLoad"]),
  };
}

function readRpcPath(path: unknown): string | null {
  return typeof path === "string" && isNormalPath(path) ? path : null;
}

export function clampLoad(value: unknown): number {
  return typeof value === "number" && value > 0 ? Math.min(1, value) : 0;
}
