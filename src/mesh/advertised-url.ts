import { lookup } from "node:dns/promises";
import { hostname } from "node:os";

/**
 * Normal form of a URL under which a node can be called, or what is wrong with it. Rows are written by other nodes, so
 * a row's URL passes through here as well: http and https only, no credentials, nothing after the path.
 */
export function parseAdvertisedUrl(text: string): { readonly url: string } | { readonly fault: string } {
  if (!URL.canParse(text)) return { fault: "it is no absolute URL" };
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:") return { fault: "only http: and https: can be called" };
  if (url.username !== "" || url.password !== "") return { fault: "it must not hold credentials" };
  if (url.search !== "" || url.hash !== "") return { fault: "it must end with the path" };
  return { url: baseOf(url) };
}

/** Where the HTTP server is bound: `url` reaches it from this machine, `address` may stand for all of the machine's. */
export interface BoundServer {
  readonly url: string;
  readonly address: string;
}

/** `{scheme of the server}://{HOSTNAME or hostname}:{bound port}`, but the bound URL where only that can be reached and no HOSTNAME says otherwise. */
export function defaultAdvertisedUrl(bound: BoundServer, environment: NodeJS.ProcessEnv = process.env): string {
  const named = environment["HOSTNAME"];
  if (!named && isLoopbackHost(bound.address)) return bound.url;
  const host = named || hostname();
  return `${speaks(bound.url)}//${host.includes(":") ? `[${host}]` : host}:${portOf(new URL(bound.url))}`;
}

/** What keeps peers from calling `url`, with the remedy; null where nothing is known to. */
export function reachProblem(url: string, bound: BoundServer): string | null {
  if (speaks(bound.url) === "https:" && speaks(url) === "http:") {
    return `the HTTP server speaks https, but the mesh node advertises ${url}, where peers would speak http to it; correct advertisedUrl`;
  }
  const boundToLoopback = isLoopbackHost(bound.address);
  if (isLoopback(url)) return `mesh node advertises a loopback address: peers on other machines cannot reach it; set ${boundToLoopback ? "server.host and advertisedUrl" : "advertisedUrl"}`;
  if (boundToLoopback) return `the HTTP server is bound to the loopback address ${bound.address}, but the mesh node advertises ${url}, where peers may not reach it; set server.host, or advertisedUrl`;
  return null;
}

/** Whether the name in `url` leads to an address, as this machine sees it. */
export async function isResolvable(url: string): Promise<boolean> {
  try {
    await lookup(hostOf(new URL(url)));
    return true;
  } catch {
    return false;
  }
}

/** Port 0 stands for the port that the server was given: tests and demos bind any free one. */
export function fillBoundPort(advertisedUrl: string, boundUrl: string): string {
  const url = new URL(advertisedUrl);
  if (url.port !== "0") return advertisedUrl;
  url.port = portOf(new URL(boundUrl));
  return baseOf(url);
}

/** Without a slash at the end, so that a path can follow. */
export function baseOf(url: URL): string {
  return url.origin + url.pathname.replace(/\/+$/, "");
}

/** An IPv6 address without its brackets. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, "");
}

/** Also where it is the scheme's own, which a URL leaves out. */
export function portOf({ port, protocol }: URL): string {
  if (port !== "") return port;
  return protocol === "https:" ? "443" : "80";
}

function speaks(url: string): string {
  return new URL(url).protocol;
}

function isLoopback(url: string): boolean {
  return isLoopbackHost(hostOf(new URL(url)));
}

function isLoopbackHost(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || host === "::1" || /^(::ffff:)?127\./.test(host);
}

/** A path as it stands in a request line: absolute, without dot segments, query or fragment. */
export function isNormalPath(path: string): boolean {
  if (!path.startsWith("/") || path.startsWith("//")) return false;
  const url = new URL(path, "http://node");
  return url.pathname === path && url.search === "" && url.hash === "";
}
