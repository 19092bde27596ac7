import { MeshError, MeshPayloadTooLargeError } from "../errors.js";
import type { IncomingMessage } from "node:http";

/** `Request` refuses them. */
const FORBIDDEN_METHODS: ReadonlySet<string> = new Set(["CONNECT", "TRACE", "TRACK"]);
const HOST_HEADER = /^(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/;

/**
 * The Web `Request` of a Node request. Its body is read only when somebody reads it, and never past `maxBodyBytes`.
 * Throws `MeshError` for what no `Request` can be.
 */
export function toWebRequest(request: IncomingMessage, signal: AbortSignal, localUrl: string, maxBodyBytes: number): Request {
  const method = request.method ?? "GET";
  if (FORBIDDEN_METHODS.has(method)) throw new MeshError(`method ${method} is not supported`, { code: "METHOD_NOT_SUPPORTED", status: 405 });
  const bare = method === "GET" || method === "HEAD" || !mayHaveBody(request);
  if (!bare && Number(request.headers["content-length"] ?? 0) > maxBodyBytes) throw tooLarge(maxBodyBytes);
  return new Request(requestUrl(request, localUrl), {
    method,
    headers: toHeaders(request),
    signal,
    ...(bare ? {} : { body: toBody(request, maxBodyBytes), duplex: "half" as const }),
  });
}

/** Absolute URL of what the client asked for. A `Host` header that is none gives way to the address of the server. */
export function requestUrl(request: IncomingMessage, localUrl: string): URL {
  const path = originForm(request.url ?? "/");
  const host = request.headers.host ?? "";
  // Joined as text: `new URL("//x/y", base)` would take x for a host.
  const claimed = HOST_HEADER.test(host) ? tryUrl(`${localUrl.slice(0, localUrl.indexOf("//"))}//${host}${path}`) : null;
  return claimed ?? tryUrl(localUrl + path) ?? new URL(localUrl);
}

/** Path and query, also of an absolute-form target (`GET http://x/y`), which proxies send. */
function originForm(target: string): string {
  if (target.startsWith("/")) return target;
  const url = tryUrl(target);
  return url === null ? "/" : url.pathname + url.search;
}

function tryUrl(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null;
}

function mayHaveBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

function toHeaders({ rawHeaders }: IncomingMessage): Headers {
  const headers = new Headers();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) headers.append(rawHeaders[i] as string, rawHeaders[i + 1] as string);
  return headers;
}

function tooLarge(limit: number): MeshPayloadTooLargeError {
  return new MeshPayloadTooLargeError(`the request body is larger than ${limit} bytes (option "server.maxBodyBytes")`);
}

/** Pulls on demand only: a route that passes on leaves the body to the next one. */
function toBody(request: IncomingMessage, limit: number): ReadableStream<Uint8Array> {
  let begun = false;
  const begin = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
    let received = 0;
    let ended = false;
    const finish = (settle: () => void): void => {
      if (ended) return;
      ended = true;
      settle();
    };
    request.on("data", (chunk: Buffer) => {
      received += chunk.byteLength;
      if (ended) return;
      if (received > limit) return finish(() => controller.error(tooLarge(limit)));
      controller.enqueue(chunk);
      if ((controller.desiredSize ?? 0) <= 0) request.pause();
    });
    request.on("end", () => finish(() => controller.close()));
    request.on("error", (error) => finish(() => controller.error(error)));
    request.on("close", () => finish(() => controller.error(new MeshError("the client closed the connection", { code: "CANCELLED", status: 499 }))));
  };
  return new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (begun) return void request.resume();
        begun = true;
        begin(controller);
      },
      cancel() {
        request.pause();
      },
    },
    { highWaterMark: 0 },
  );
}
