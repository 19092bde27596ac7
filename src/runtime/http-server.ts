import { MeshCancelledError, MeshConfigurationError, MeshError } from "../errors.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { InFlight, Run } from "../pipeline/in-flight.js";
import { asTraceparent, TRACEPARENT } from "../pipeline/traceparent.js";
import { answerError, answerJson, Refusals } from "./http-errors.js";
import { faultOfHead, MOST_HEADERS, serverLimits } from "./http-limits.js";
import { Pipelines } from "./http-pipeline.js";
import { chosenProtocol, reinject, responseTo } from "./http-upgrade.js";
import { createNodeServer } from "./node-server.js";
import { toWebRequest } from "./web-request.js";
import { sendWebResponse } from "./web-response.js";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Logger } from "../logger.js";
import type { HttpLimits } from "./http-limits.js";
import type { Upgrade } from "./http-upgrade.js";
import type { ServerTls } from "./node-server.js";
import type { Dispatcher, HostEnv, RawRouteRegistration, Scope, Target, UpgradeRegistration } from "../contract/registration.js";

export interface WebRoute {
  readonly kind: "route";
  /** Takes a `Request`, returns a `Response`, or null to pass on. Its context is a `RouteEnv`. */
  readonly target: Target;
}

export type HttpRoute = WebRoute | RawRouteRegistration | UpgradeRegistration;

export interface HttpServerOptions extends HttpLimits {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Null: plain HTTP. */
  readonly tls: ServerTls | null;
  /** Asked in this order. */
  readonly routes: readonly HttpRoute[];
  readonly dispatcher: Dispatcher;
  readonly env: HostEnv;
  readonly log: Logger;
}

/** The scope of one request; `bag` is what its routes share by `env.get` and `env.set`. */
export interface RequestScope extends Scope {
  readonly bag: Map<string, unknown>;
}

export interface HttpServer {
  /** Resolves with the bound URL. Rejects with `MeshConfigurationError` where the address cannot be bound. */
  listen(): Promise<string>;
  /** Address that is bound, once it listens: `0.0.0.0` and `::` stand for all of the machine's. */
  readonly address: string | null;
  /** Requests that are not answered in full. */
  readonly inFlight: InFlight;
  /** From here on web routes take no request: it is answered 503, and its connection ends with the answer. */
  refuseNew(): void;
  /** Closes idle connections at once, and the others after `graceMs`. Resolves when all are gone. */
  close(graceMs: number): Promise<void>;
}

export function createHttpServer(options: HttpServerOptions): HttpServer {
  return new NodeHttpServer(options);
}

const NOT_FOUND = { ok: false, error: "not found" };
const STOPPING = { ok: false, error: "this host is stopping", code: "OVERLOADED" };
/** Also the time in which the client can read its answer. */
const DROP_LOOK_MS = 250;

function ignore(): void {}

/** One request under way. What only web routes need is made when the first one is reached. */
class Exchange extends Run {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  cancellation: Cancellation | undefined;
  scope: RequestScope | undefined;
  webRequest: Request | undefined;
  ended = false;
  /** Came after `refuseNew`: only raw routes may still know what to say. Nobody waits for its end. */
  readonly late: boolean;

  constructor(request: IncomingMessage, response: ServerResponse, late: boolean) {
    // Without the query, which may hold what no log should.
    super(`${request.method ?? ""} ${(request.url ?? "").split("?", 1)[0] ?? ""}`);
    this.request = request;
    this.response = response;
    this.late = late;
  }
}

class NodeHttpServer implements HttpServer {
  readonly inFlight = new InFlight();
  readonly #options: HttpServerOptions;
  readonly #server: Server;
  readonly #protocols: ReadonlySet<string>;
  readonly #sockets = new Set<Socket>();
  readonly #pipelines = new Pipelines();
  readonly #refusals = new Refusals();
  #url = "";
  #address: string | null = null;
  #refusing = false;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#protocols = new Set(options.routes.flatMap((route) => (route.kind === "upgrade" ? [route.protocol.toLowerCase()] : [])));
    this.#server = createNodeServer(serverLimits(options), options.tls, options.log);
    this.#server.maxConnections = options.maxConnections;
    this.#server.maxHeadersCount = MOST_HEADERS + 1;
    this.#server.on("request", (request, response) => void this.#handle(request, response, undefined));
    // Over TLS too this is the bare socket, with which the encrypted one ends: handshakes under way are known as well.
    this.#server.on("connection", (socket: Socket) => this.#track(socket));
    if (this.#protocols.size > 0) this.#server.on("upgrade", (request, socket: Socket, head) => this.#onUpgrade(request, socket, head));
  }

  async listen(): Promise<string> {
    const { host, port, tls, log } = this.#options;
    await new Promise<void>((resolve, reject) => {
      const fail = (error: Error): void => reject(bindError(error, host, port));
      this.#server.once("error", fail);
      this.#server.listen(port, host, () => {
        this.#server.off("error", fail);
        this.#server.on("error", (error) => log.error("the HTTP server failed", { err: error }));
        resolve();
      });
    });
    const bound = this.#server.address() as AddressInfo;
    this.#address = bound.address;
    return (this.#url = boundUrl(tls === null ? "http" : "https", bound));
  }

  get address(): string | null {
    return this.#address;
  }

  /** Goes on listening: connections that wait to be accepted would be reset, and the requests on them with them. */
  refuseNew(): void {
    this.#refusing = true;
  }

  async close(graceMs: number): Promise<void> {
    this.#refusing = true;
    const closed = this.#server.listening ? new Promise<void>((resolve) => this.#server.close(() => resolve())) : Promise.resolve();
    // Upgraded sockets are no longer known to the server: it waits for them, but cannot close them.
    const timer = setTimeout(() => this.#sockets.forEach((socket) => socket.destroy()), graceMs);
    await closed;
    clearTimeout(timer);
  }

  #track(socket: Socket): void {
    if (this.#sockets.has(socket)) return;
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #onUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    // The server has let go of the socket: from here on an error of it would have no listener.
    socket.on("error", ignore);
    this.#pipelines.afterAnswers(socket, () => {
      // Node's limit for the time between two requests.
      socket.setTimeout(0);
      const protocol = chosenProtocol(request, this.#protocols);
      if (protocol === undefined) {
        socket.off("error", ignore);
        return reinject(this.#server, request, socket, head);
      }
      void this.#handle(request, responseTo(request, socket), { protocol, socket, head });
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse, upgrade: Upgrade | undefined): Promise<void> {
    const exchange = this.#begin(request, response);
    const fault = faultOfHead(request);
    if (fault !== null) return this.#refusals.answer(response, fault.status, { ok: false, error: fault.error });
    try {
      for (const route of this.#options.routes) if (await this.#offer(route, exchange, upgrade)) return;
      this.#answerNobodys(exchange);
    } catch (error) {
      this.#answerError(error, exchange);
    }
  }

  #answerNobodys({ request, response, late }: Exchange): void {
    const [status, body] = late ? ([503, STOPPING] as const) : ([404, NOT_FOUND] as const);
    if (late && !request.complete && hasBody(request)) this.#refusals.answer(response, status, body);
    else answerJson(response, status, body);
  }

  /** Not even an error that throws when it is looked at leaves a request without an end. */
  #answerError(error: unknown, { response, name }: Exchange): void {
    const { log } = this.#options;
    try {
      answerError(error, response, name, log, this.#refusals);
    } catch (cause) {
      log.error("a request failed, and its error cannot be answered", { request: name, err: cause });
      response.destroy();
    }
  }

  #begin(request: IncomingMessage, response: ServerResponse): Exchange {
    const exchange = new Exchange(request, response, this.#refusing);
    if (!exchange.late) this.inFlight.add(exchange);
    // An error of the connection is followed by its close, which is where it is dealt with.
    response.on("error", () => undefined);
    response.on("close", () => this.#end(exchange));
    this.#pipelines.add(request, response);
    if (this.#options.env.draining || this.#refusing) response.shouldKeepAlive = false;
    return exchange;
  }

  /** An exchange ends when its response is written out, when the connection is gone, or with an upgrade. */
  #end(exchange: Exchange): void {
    if (exchange.ended) return;
    exchange.ended = true;
    if (!exchange.response.writableFinished) exchange.cancellation?.abort(new MeshCancelledError("the client closed the connection"));
    exchange.cancellation?.dispose();
    if (!exchange.late) this.inFlight.remove(exchange);
    if (!exchange.request.complete && exchange.response.shouldKeepAlive && !exchange.request.socket.destroyed) dropRest(exchange.request, this.#options.maxBodyBytes);
  }

  async #offer(route: HttpRoute, exchange: Exchange, upgrade: Upgrade | undefined): Promise<boolean> {
    if (exchange.late && route.kind !== "raw-route") return false;
    if (route.kind === "route") return this.#offerWeb(route, exchange);
    if (route.kind === "upgrade") return upgrade?.protocol === route.protocol.toLowerCase() && this.#offerUpgrade(route, exchange, upgrade);
    return upgrade === undefined && route.handler(exchange.request, exchange.response, this.#options.env);
  }

  async #offerWeb(route: WebRoute, exchange: Exchange): Promise<boolean> {
    const { request, response } = exchange;
    const scope = (exchange.scope ??= this.#scopeOf(exchange));
    exchange.webRequest ??= toWebRequest(request, scope.cancellation.signal, this.#url, this.#options.maxBodyBytes);
    const answer = await this.#options.dispatcher.dispatch(route.target, exchange.webRequest, scope);
    if (answer === null || answer === undefined) return false;
    if (!isResponse(answer)) throw new MeshError(`route ${route.target.name} must return a Response or null`);
    await sendWebResponse(answer, response, request.method === "HEAD");
    return true;
  }

  #scopeOf(exchange: Exchange): RequestScope {
    const trace = asTraceparent(exchange.request.headers[TRACEPARENT]);
    const root = this.#options.dispatcher.rootScope(trace === null ? {} : { meta: { [TRACEPARENT]: trace } });
    const cancellation = (exchange.cancellation = new Cancellation(root.cancellation));
    return { ...root, cancellation, bag: new Map() };
  }

  async #offerUpgrade(route: UpgradeRegistration, exchange: Exchange, { socket, head }: Upgrade): Promise<boolean> {
    exchange.response.detachSocket(socket);
    try {
      if (await route.handler(exchange.request, socket, head, this.#options.env)) {
        this.#end(exchange);
        return true;
      }
    } catch (error) {
      socket.destroy();
      this.#end(exchange);
      throw error;
    }
    exchange.response.assignSocket(socket);
    return false;
  }
}

/**
 * What is left of the body of a request that has been answered is read and dropped, since it holds up the next one of the connection.
 * Of more than the longest body there may be no end: it costs the connection. Counted at the socket: Node itself drops what nobody reads.
 */
function dropRest(request: IncomingMessage, mostBytes: number): void {
  const { socket } = request;
  const limit = socket.bytesRead + mostBytes;
  const look = (): void => {
    if (request.complete) end();
    else if (socket.bytesRead > limit) socket.destroy();
  };
  const timer = setInterval(look, DROP_LOOK_MS);
  const end = (): void => {
    clearInterval(timer);
    socket.off("close", end);
  };
  socket.once("close", end);
  request.removeAllListeners("data").resume();
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

function isResponse(answer: unknown): answer is Response {
  const { status, headers } = answer as Partial<Response>;
  return typeof status === "number" && typeof headers?.getSetCookie === "function";
}

const BIND_HINTS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'is in use: choose another "server.port", or 0 for any free one',
  EACCES: 'needs privileges: choose a "server.port" from 1024 on, or 0 for any free one',
  EADDRNOTAVAIL: 'is no address of this machine: correct "server.host"',
  ENOTFOUND: 'does not resolve: correct "server.host"',
};

function bindError(cause: Error, host: string, port: number): MeshConfigurationError {
  const hint = BIND_HINTS[(cause as NodeJS.ErrnoException).code ?? ""] ?? `cannot be bound: ${cause.message}`;
  return new MeshConfigurationError(`options "server.host" and "server.port": ${bracketed(host)}:${port} ${hint}`, { cause });
}

/** A URL under which this machine reaches the server: where it is bound to all addresses, by the loopback one. */
function boundUrl(scheme: string, { address, port }: AddressInfo): string {
  const host = address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : address;
  return `${scheme}://${bracketed(host)}:${port}`;
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
