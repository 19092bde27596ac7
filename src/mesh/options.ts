import { MeshConfigurationError } from "../errors.js";
import { TLS_PARTS } from "../tls.js";
import { isNormalPath, parseAdvertisedUrl } from "./advertised-url.js";
import { AllowedPeers } from "./allowed-peers.js";
import { STRATEGY_NAMES } from "./balancing.js";
import { checkMeta, DEFAULT_RPC_PATH } from "./metadata.js";
import { refuseUnknownKeys } from "./option-names.js";
import type { RpcAuth } from "./rpc-gate.js";
import type { CallMiddleware, ServiceSource, Strategy } from "../contract/mesh-client.js";
import type { Meta } from "../contract/context.js";
import type { Class } from "../contract/descriptor.js";
import type { TlsPartName } from "../tls.js";

export interface MeshOptions {
  /** Classes, instances and definitions; at least one. */
  readonly services: readonly ServiceSource[];
  /** `"local-only"`: no calls between nodes, no token or URL needed, never a target for peers. Default `"http"`. */
  readonly transport?: "http" | "local-only";
  /**
   * Where peers reach this node; http or https. Port 0 stands for the bound port. Default: the environment variable
   * `CHIMPBASE_MESH_ADVERTISED_URL`, else `{http or https}://{HOSTNAME or hostname}:{bound port}`, or the bound address where the server is bound to
   * loopback and `HOSTNAME` is not set.
   */
  readonly advertisedUrl?: string;
  /** Name of the secret, or several: the first is sent, all are accepted. Required for http. */
  readonly meshToken?: string | readonly string[];
  /**
   * `"signed"`: nodes sign requests and answers with the secret, which then never leaves them, and take no tokens. `"token"`:
   * the secret is sent with each request, except to nodes that run signed. Default `"token"`.
   */
  readonly rpcAuth?: RpcAuth;
  /** Advertised, so nodes may differ. Default `/__chimpbase/mesh/rpc`. */
  readonly rpcPath?: string;
  /** Default 10000. */
  readonly heartbeatMs?: number;
  /** Age of its last heartbeat at which a node counts as gone; at least twice `heartbeatMs`. Default 30000. */
  readonly offlineAfterMs?: number;
  /** Age at which its row is deleted; at least twice `offlineAfterMs`. Default 600000. */
  readonly gcAfterMs?: number;
  /** Default `"local-first"`. */
  readonly defaultStrategy?: Strategy;
  /** Budget of a call, retries included, in ms. Default 5000. */
  readonly defaultTimeoutMs?: number;
  /** Tries after the first. Default 0. */
  readonly defaultRetries?: number;
  /** `(next) => (name, args, options) => Promise`; the first listed is outermost. */
  readonly middleware?: readonly CallMiddleware[];
  /** Told to peers; a function is read at each heartbeat. `cpuLoad` (0..1) is measured unless given. */
  readonly meta?: Meta | (() => Meta);
  /** Makes instances, e.g. from a DI container. Default `new Class()`. */
  readonly resolve?: <T extends object>(type: new () => T) => T;
  /** User error classes, revived by name on the calling side. */
  readonly errors?: readonly Class<Error>[];
  /** Largest RPC request body, in bytes. Default 1048576. */
  readonly maxBodyBytes?: number;
  /** Calls from peers that this node works on at the same time; more are refused at once, and go to other nodes. Default 5000. */
  readonly maxInFlight?: number;
  /** How this node calls https peers. Certificates and names are always verified. */
  readonly tls?: PeerTlsOptions;
  /**
   * Where this node sends calls, and the token with them: host names (`"api"`, `"*.mesh.internal"`, `"*"` for any), addresses and CIDRs
   * (`"10.0.0.0/8"`, `"fd00::/8"`), each with scheme and port where they matter (`"https://api:3000"`). A name that matches none is
   * called only at addresses in these CIDRs. Default: every http and https URL.
   */
  readonly allowedPeers?: readonly string[];
}

/** Each is PEM text, which begins with `-----BEGIN`, or the path of a PEM file, read when the host starts. */
export interface PeerTlsOptions {
  /** CAs that peers' certificates must come from, in place of the public ones. */
  readonly ca?: string;
  /** Certificate that this node shows, where peers ask for one. Goes with `key`. */
  readonly cert?: string;
  /** Without a passphrase. */
  readonly key?: string;
}

type Optional = "advertisedUrl" | "meshToken" | "resolve" | "allowedPeers";

/** Checked, with every default filled in. */
export interface ResolvedMeshOptions extends Required<Omit<MeshOptions, Optional>> {
  /** Normal form; null: made from the host name and the bound port at start. */
  readonly advertisedUrl: string | null;
  /** Names of secrets; empty for `"local-only"`. */
  readonly tokenSecrets: readonly string[];
  readonly resolve: MeshOptions["resolve"];
  /** Null: every peer. */
  readonly allowedPeers: AllowedPeers | null;
}

const URL_VARIABLE = "CHIMPBASE_MESH_ADVERTISED_URL";
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const TRANSPORTS = ["http", "local-only"] as const;
const RPC_AUTHS = ["token", "signed"] as const;
const KNOWN: readonly (keyof MeshOptions)[] = [
  "services", "transport", "advertisedUrl", "meshToken", "rpcAuth", "rpcPath", "heartbeatMs", "offlineAfterMs", "gcAfterMs",
  "defaultStrategy", "defaultTimeoutMs", "defaultRetries", "middleware", "meta", "resolve", "errors", "maxBodyBytes", "maxInFlight", "tls", "allowedPeers",
];

/** Throws `MeshConfigurationError` that names the option, its value and the way out. */
export function resolveMeshOptions(given: MeshOptions, environment: NodeJS.ProcessEnv = process.env): ResolvedMeshOptions {
  if (typeof given !== "object" || given === null) refuse("services", given, "call chimpbaseMesh({ services: [...] })");
  refuseUnknownKeys("mesh option", given, KNOWN);
  const transport = oneOf("transport", given.transport ?? "http", TRANSPORTS);
  return {
    services: checkServices(given.services),
    transport,
    advertisedUrl: transport === "http" ? checkAdvertisedUrl(given.advertisedUrl, environment) : null,
    tokenSecrets: transport === "http" ? checkTokens(given.meshToken) : [],
    rpcAuth: oneOf("rpcAuth", given.rpcAuth ?? "token", RPC_AUTHS),
    rpcPath: checkRpcPath(given.rpcPath ?? DEFAULT_RPC_PATH),
    ...checkMembershipTimes(given),
    defaultStrategy: oneOf("defaultStrategy", given.defaultStrategy ?? "local-first", STRATEGY_NAMES),
    defaultTimeoutMs: duration("defaultTimeoutMs", given.defaultTimeoutMs ?? 5_000),
    defaultRetries: wholeNumber("defaultRetries", given.defaultRetries ?? 0, 0),
    middleware: functions("middleware", given.middleware ?? []),
    meta: checkMetaOption(given.meta ?? {}),
    resolve: checkResolve(given.resolve),
    errors: checkErrorClasses(given.errors ?? []),
    maxBodyBytes: wholeNumber("maxBodyBytes", given.maxBodyBytes ?? 1024 * 1024, 1),
    maxInFlight: wholeNumber("maxInFlight", given.maxInFlight ?? 5_000, 1),
    tls: checkTls(given.tls ?? {}),
    allowedPeers: checkAllowedPeers(given.allowedPeers),
  };
}

export const tlsPartName: TlsPartName = (part) => `mesh option tls.${part}`;

/** Values are in no message: a key may be among them. */
function checkTls(tls: unknown): PeerTlsOptions {
  if (typeof tls !== "object" || tls === null) throw new MeshConfigurationError("mesh option tls must be an object with ca, or with cert and key");
  refuseUnknownKeys("option of mesh option tls", tls, TLS_PARTS);
  const parts = tls as Readonly<Record<string, unknown>>;
  const given = TLS_PARTS.filter((part) => parts[part] !== undefined);
  for (const part of given) {
    if (typeof parts[part] !== "string" || parts[part] === "") throw new MeshConfigurationError(`${tlsPartName(part)} must be PEM text or the path of a PEM file`);
  }
  if (given.includes("cert") !== given.includes("key")) throw new MeshConfigurationError("mesh options tls.cert and tls.key go together: give both or none");
  return Object.fromEntries(given.map((part) => [part, parts[part]]));
}

function checkAllowedPeers(entries: unknown): AllowedPeers | null {
  if (entries === undefined) return null;
  if (!Array.isArray(entries) || entries.length === 0) return refuse("allowedPeers", entries, "list host names, addresses and CIDRs, or leave it out to allow every peer");
  for (const entry of entries as unknown[]) if (typeof entry !== "string") refuse("allowedPeers", entry, "list strings");
  return new AllowedPeers(entries as string[]);
}

function checkServices(services: unknown): readonly ServiceSource[] {
  if (!Array.isArray(services)) refuse("services", services, "list classes, instances or definitions");
  if (services.length === 0) refuse("services", "[]", "list at least one class, instance or definition");
  return [...(services as ServiceSource[])];
}

function checkAdvertisedUrl(given: unknown, environment: NodeJS.ProcessEnv): string | null {
  const [source, text] = given === undefined ? [URL_VARIABLE, environment[URL_VARIABLE]] : ["advertisedUrl", given];
  if (text === undefined || (source === URL_VARIABLE && text === "")) return null;
  if (typeof text !== "string") refuse(source, text, "give a URL such as http://api:3000");
  const parsed = parseAdvertisedUrl(text);
  // The value is left out: a refused URL may hold a password.
  if ("fault" in parsed) throw new MeshConfigurationError(`${source} cannot be used: ${parsed.fault}; give a URL such as http://api:3000`);
  return parsed.url;
}

function checkTokens(given: unknown): readonly string[] {
  const hint = 'name the secret that holds the shared token, e.g. "MESH_TOKEN", or use transport: "local-only"';
  if (given === undefined) throw new MeshConfigurationError(`mesh option meshToken is missing: ${hint}`);
  const names: readonly unknown[] = Array.isArray(given) ? given : [given];
  const named = names.filter((name): name is string => typeof name === "string" && name.trim() !== "");
  if (named.length === 0 || named.length < names.length) refuse("meshToken", given, hint);
  return named;
}

function checkRpcPath(path: unknown): string {
  if (typeof path === "string" && isNormalPath(path)) return path;
  return refuse("rpcPath", path, "give an absolute path without dot segments, query or fragment, e.g. /mesh/rpc");
}

function checkMembershipTimes(given: MeshOptions): Pick<ResolvedMeshOptions, "heartbeatMs" | "offlineAfterMs" | "gcAfterMs"> {
  const heartbeatMs = duration("heartbeatMs", given.heartbeatMs ?? 10_000);
  const offlineAfterMs = duration("offlineAfterMs", given.offlineAfterMs ?? 30_000);
  const gcAfterMs = duration("gcAfterMs", given.gcAfterMs ?? 600_000);
  atLeastTwice("offlineAfterMs", offlineAfterMs, "heartbeatMs", heartbeatMs);
  atLeastTwice("gcAfterMs", gcAfterMs, "offlineAfterMs", offlineAfterMs);
  return { heartbeatMs, offlineAfterMs, gcAfterMs };
}

function atLeastTwice(longer: string, longerMs: number, shorter: string, shorterMs: number): void {
  if (longerMs >= 2 * shorterMs) return;
  throw new MeshConfigurationError(
    `mesh option ${longer} (${longerMs}) must be at least twice ${shorter} (${shorterMs}): raise ${longer} or lower ${shorter}`,
  );
}

function checkMetaOption(meta: unknown): Meta | (() => Meta) {
  if (typeof meta === "function") return meta as () => Meta;
  const checked = checkMeta(meta);
  if ("fault" in checked) throw new MeshConfigurationError(`mesh option meta ${checked.fault}`);
  return checked.meta;
}

function checkResolve(resolve: MeshOptions["resolve"]): MeshOptions["resolve"] {
  if (resolve === undefined || typeof resolve === "function") return resolve;
  return refuse("resolve", resolve, "give a function (Class) => instance");
}

function checkErrorClasses(classes: unknown): readonly Class<Error>[] {
  if (!Array.isArray(classes)) return refuse("errors", classes, "list error classes");
  for (const type of classes as unknown[]) {
    if (typeof type !== "function" || !(type.prototype instanceof Error)) refuse("errors", type, "list classes that extend Error");
  }
  return [...(classes as Class<Error>[])];
}

function functions(name: string, list: unknown): readonly CallMiddleware[] {
  if (!Array.isArray(list)) return refuse(name, list, "list functions");
  for (const entry of list as unknown[]) if (typeof entry !== "function") refuse(name, entry, "list functions");
  return [...(list as CallMiddleware[])];
}

function oneOf<T extends string>(name: string, value: unknown, allowed: readonly T[]): T {
  if ((allowed as readonly unknown[]).includes(value)) return value as T;
  return refuse(name, value, `use one of ${allowed.map((entry) => `"${entry}"`).join(", ")}`);
}

function duration(name: string, value: unknown): number {
  if (typeof value === "number" && value > 0 && value <= LONGEST_TIMER_MS) return value;
  return refuse(name, value, `give milliseconds above 0 and up to ${LONGEST_TIMER_MS}`);
}

function wholeNumber(name: string, value: unknown, least: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least) return value as number;
  return refuse(name, value, `give a whole number of at least ${least}`);
}

function refuse(name: string, value: unknown, remedy: string): never {
  throw new MeshConfigurationError(`mesh option ${name} cannot be ${display(value)}: ${remedy}`);
}

function display(value: unknown): string {
  if (typeof value === "function") return `function ${value.name}`;
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? `[${value.map(display).join(", ")}]` : "an object";
  return typeof value === "string" ? `"${value}"` : String(value);
}
