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
  return { url: url.origin + url.pathname.replace(/\/+$/, "") };
}

/** `http://{HOSTNAME or hostname}:{bound port}`. */
export function defaultAdvertisedUrl(boundUrl: string, environment: NodeJS.ProcessEnv = process.env): string {
  const host = environment["HOSTNAME"] || hostname();
  return `http://${host.includes(":") ? `[${host}]` : host}:${portOf(boundUrl)}`;
}

/** Port 0 stands for the port that the server was given: tests and demos bind any free one. */
export function fillBoundPort(advertisedUrl: string, boundUrl: string): string {
  const url = new URL(advertisedUrl);
  if (url.port !== "0") return advertisedUrl;
  url.port = portOf(boundUrl);
  return url.origin + url.pathname.replace(/\/+$/, "");
}

function portOf(url: string): string {
  const { port, protocol } = new URL(url);
  if (port !== "") return port;
  return protocol === "https:" ? "443" : "80";
}

export function isLoopback(url: string): boolean {
  const { hostname: host } = new URL(url);
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || host.startsWith("127.");
}

/** A path as it stands in a request line: absolute, without dot segments, query or fragment. */
export function isNormalPath(path: string): boolean {
  if (!path.startsWith("/") || path.startsWith("//")) return false;
  const url = new URL(path, "http://node");
  return url.pathname === path && url.search === "" && url.hash === "";
}
