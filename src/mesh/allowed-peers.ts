import { BlockList, isIP } from "node:net";
import { MeshConfigurationError } from "../errors.js";
import { hostOf, portOf } from "./advertised-url.js";

/** `"by-address"`: the name matches no entry, but the address that it resolves to may, so that must be looked at. */
export type Verdict = "allowed" | "by-address" | "refused";

/** What an entry says of a host: one name, all names below a suffix, addresses, or anything. */
type HostRule =
  | { readonly kind: "any" }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "below"; readonly suffix: string }
  | { readonly kind: "range"; readonly family: 4 | 6; readonly list: BlockList };

interface Rule {
  /** `http:` or `https:`; null for both. */
  readonly protocol: string | null;
  readonly port: string | null;
  readonly host: HostRule;
}

interface Address {
  readonly family: 4 | 6;
  readonly text: string;
}

const LABELS = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/;
const BEFORE_SUFFIX = /^[^.]+(\.[^.]+)*$/;
const MAPPED = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;
const MAPPED_PREFIX = 96;

/**
 * Which peers may be called. URLs are judged as the WHATWG parser reads them, which is what connects to them as well. A name
 * with a dot at its end is another name: without the dot, the resolver may append a search domain.
 */
export class AllowedPeers {
  readonly #rules: readonly Rule[];

  /** Throws `MeshConfigurationError` naming the entry that is none. */
  constructor(entries: readonly string[]) {
    this.#rules = entries.map(parseEntry);
  }

  /** `url` is in the normal form of `parseAdvertisedUrl`. */
  judge(url: string): Verdict {
    const target = new URL(url);
    const host = hostOf(target);
    const address = toAddress(host);
    const rules = this.#rules.filter((rule) => fits(rule, target));
    if (rules.some((rule) => (address === null ? allowsName(rule.host, host) : allowsAddress(rule.host, address)))) return "allowed";
    return address === null && rules.some((rule) => rule.host.kind === "range") ? "by-address" : "refused";
  }

  /** Whether `address`, to which the name in `url` resolves, is in a range that is allowed. */
  allowsAddress(url: string, address: string): boolean {
    const parsed = toAddress(address);
    const target = new URL(url);
    return parsed !== null && this.#rules.some((rule) => fits(rule, target) && allowsAddress(rule.host, parsed));
  }
}

function fits({ protocol, port }: Rule, url: URL): boolean {
  if (protocol !== null && protocol !== url.protocol) return false;
  return port === null || port === portOf(url);
}

function allowsName(rule: HostRule, name: string): boolean {
  if (rule.kind === "name") return name === rule.name;
  if (rule.kind === "below") return name.endsWith(rule.suffix) && BEFORE_SUFFIX.test(name.slice(0, -rule.suffix.length));
  return rule.kind === "any";
}

function allowsAddress(rule: HostRule, { family, text }: Address): boolean {
  if (rule.kind === "range") return rule.family === family && rule.list.check(text, `ipv${family}`);
  return rule.kind === "any";
}

/** An IPv4 address in IPv6 form (`::ffff:10.0.0.1`) is the IPv4 address that the kernel connects to. Null for names and zones. */
function toAddress(text: string): Address | null {
  const family = isIP(text);
  if (family === 4) return { family, text };
  if (family !== 6 || text.includes("%")) return null;
  const normal = new URL(`http://[${text}]`).hostname.slice(1, -1);
  const mapped = MAPPED.exec(normal);
  if (mapped === null) return { family: 6, text: normal };
  const [high, low] = [mapped[1], mapped[2]].map((word) => parseInt(word as string, 16)) as [number, number];
  return { family: 4, text: [high >> 8, high & 255, low >> 8, low & 255].join(".") };
}

function parseEntry(entry: string): Rule {
  const parts = split(entry);
  const host = parts === null ? null : toHostRule(parts.host);
  if (parts === null || host === null || !isPort(parts.port)) throw wrong(entry);
  return { protocol: parts.protocol, port: parts.port, host };
}

interface EntryParts {
  readonly protocol: string | null;
  readonly host: string;
  readonly port: string | null;
}

function split(entry: string): EntryParts | null {
  const [, scheme, rest] = /^(?:(https?):\/\/)?(.+)$/is.exec(entry) ?? [];
  if (rest === undefined) return null;
  const protocol = scheme === undefined ? null : `${scheme.toLowerCase()}:`;
  // `fd00::/8` and `::1` have colons of their own, and so no port, unless in brackets.
  if (!rest.startsWith("[") && rest.split(":").length > 2) return { protocol, host: rest, port: null };
  const [, bracketed, prefix = "", bare, port = null] = /^(?:\[([^[\]]+)\](\/\d+)?|([^:]+))(?::(.*))?$/s.exec(rest) ?? [];
  if (bracketed !== undefined) return isIP(bracketed.split("/", 1)[0] as string) === 6 ? { protocol, host: bracketed + prefix, port } : null;
  return bare === undefined ? null : { protocol, host: bare, port };
}

function isPort(port: string | null): boolean {
  return port === null || (/^[1-9]\d{0,4}$/.test(port) && Number(port) <= 65_535);
}

function toHostRule(host: string): HostRule | null {
  if (host === "*") return { kind: "any" };
  if (host.includes("/")) return toRange(host);
  if (host.startsWith("*.")) {
    const suffix = toName(host.slice(2));
    return suffix === null ? null : { kind: "below", suffix: `.${suffix}` };
  }
  if (isIP(host) !== 0) return toRange(`${host}/${isIP(host) === 4 ? 32 : 128}`);
  const name = toName(host);
  return name === null ? null : { kind: "name", name };
}

function toRange(text: string): HostRule | null {
  const [, host = "", prefix = ""] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const address = toAddress(host);
  if (address === null) return null;
  // The prefix of a mapped address counts from the IPv6 form's first bit.
  const bits = Number(prefix) - (address.family === 4 && isIP(host) === 6 ? MAPPED_PREFIX : 0);
  if (bits < 0 || bits > (address.family === 4 ? 32 : 128)) return null;
  const list = new BlockList();
  list.addSubnet(address.text, bits, `ipv${address.family}`);
  return { kind: "range", family: address.family, list };
}

/** Lower case and punycode, as in a parsed URL; null for what is no name, numbers that stand for an address among them. */
function toName(text: string): string | null {
  if (/[\s\p{Cc}/\\?#@%:[\]*]/u.test(text) || !URL.canParse(`http://${text}`)) return null;
  const { hostname } = new URL(`http://${text}`);
  return LABELS.test(hostname) && isIP(hostname) === 0 ? hostname : null;
}

function wrong(entry: string): MeshConfigurationError {
  const remedy = 'give host names ("api", "*.mesh.internal", "*" for any), addresses or CIDRs ("10.0.0.0/8", "fd00::/8"), each with scheme and port where they matter ("https://api:3000")';
  // What stands before an @ may be a password.
  return new MeshConfigurationError(`mesh option allowedPeers has the wrong entry ${entry.includes("@") ? "…@…" : JSON.stringify(entry)}: ${remedy}`);
}
