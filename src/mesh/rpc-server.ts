import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { MeshActionNotFoundError, MeshCancelledError } from "../errors.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { Deadline } from "../pipeline/deadline.js";
import { LingerLimit } from "../pipeline/linger-limit.js";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import type { YoungRuns } from "../pipeline/young-runs.js";
import type { Dispatcher, HostEnv, ScopedContext } from "../contract/registration.js";
import { TRACEPARENT } from "../pipeline/traceparent.js";
import { CallerConnections } from "./caller-connections.js";
import type { LocalActions } from "./directory.js";
import { runLocal } from "./local-run.js";
import { declaredLength, readBody, type BodyFault } from "./rpc-body.js";
import { CALLER_HEADER, decodeTimeout, idOrNull, TIMEOUT_HEADER } from "./rpc-codec.js";
import { RpcDesk, type Arrival, type ExecuteRequest, type RequestRoot } from "./rpc-desk.js";
import { RequestGate, type Admission, type RpcAuth } from "./rpc-gate.js";
import { refuseAndClose, refuseUnread, sendAnswer, UNAUTHORIZED, type Lingering, type RpcAnswer } from "./rpc-response.js";
import { signAnswer } from "./rpc-verifier.js";
import { WireServer } from "./wire-server.js";

export interface RpcServerOptions {
  readonly nodeId: string;
  readonly rpcPath: string;
  /** All are accepted, as token or as key. */
  readonly tokens: readonly string[];
  /** `"signed"`: tokens are refused. Default `"token"`. */
  readonly rpcAuth?: RpcAuth;
  /** Ms since the epoch, on the database's clock. */
  readonly databaseNow: () => number;
  /** Where peers reach this node; told to those that took it for another one. Default: null, not known. */
  readonly advertisedUrl?: () => string | null;
  /** The only actions that can be reached. */
  readonly local: LocalActions;
  readonly dispatcher: Dispatcher;
  readonly wheel: TimerWheel;
  readonly young: YoungRuns;
  /** Budget of a request that names none. */
  readonly defaultTimeoutMs: number;
  /** Default 1 MiB. */
  readonly maxBodyBytes?: number;
  /** Longest answer, in bytes; a longer result is a `MeshPayloadTooLargeError`. Default 16 MiB. */
  readonly maxResultBytes?: number;
  /** Time in which a body must be here. Default 10000. */
  readonly bodyTimeoutMs?: number;
  /** Requests at the same time; more are answered 503. Default 5000. */
  readonly maxInFlight?: number;
  /** Whether this node takes no requests any more, for good. Default: never. */
  readonly refuses?: () => boolean;
  /** Whether answers carry stacks. Default: outside production only. */
  readonly stacks?: boolean;
}

export interface RpcServer {
  /** The raw route: false where the request is for another path. Resolves when the request has been answered. */
  handle(request: IncomingMessage, response: ServerResponse, env: HostEnv): boolean | Promise<boolean>;
  /** The upgrade to `WIRE_PROTOCOL`: false where the request is for another path. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, env: HostEnv): boolean;
  /** The handler of `EXECUTE_ACTION`: runs an action of a registered service in the scope of `ctx`. */
  execute(ctx: ScopedContext, request: ExecuteRequest): Promise<unknown>;
  /** Resolves once all requests that were taken have been answered. */
  idle(): Promise<void>;
  /** Resolves once callers have closed the connections on which they were served. */
  callersGone(): Promise<void>;
  /** Closes the wires that callers have left open. */
  close(): void;
}

/** A request as it came, and what it has proved. */
interface Posted extends Arrival {
  readonly admission: Admission;
}

export const DEFAULTS = {
  rpcAuth: "token", advertisedUrl: () => null,
  maxBodyBytes: 1024 ** 2, maxResultBytes: 16 * 1024 ** 2, bodyTimeoutMs: 10_000, maxInFlight: 5_000, refuses: () => false,
} as const;

const NOT_A_POST: RpcAnswer = { status: 405, body: '{"ok":false,"error":"mesh rpc requires POST"}', allow: "POST" };

export function createRpcServer(options: RpcServerOptions): RpcServer {
  return new HttpRpcServer({ stacks: process.env.NODE_ENV !== "production", ...DEFAULTS, ...options });
}

class HttpRpcServer implements RpcServer {
  readonly #options: Required<RpcServerOptions>;
  readonly #gate: RequestGate;
  readonly #desk: RpcDesk;
  readonly #wires: WireServer;
  readonly #connections = new CallerConnections();
  readonly #lingering: Lingering;

  constructor(options: Required<RpcServerOptions>) {
    this.#options = options;
    this.#gate = new RequestGate(options);
    this.#desk = new RpcDesk(options);
    this.#wires = new WireServer({ ...options, gate: this.#gate, desk: this.#desk, connections: this.#connections });
    this.#lingering = { wheel: options.wheel, limit: new LingerLimit() };
  }

  handle(request: IncomingMessage, response: ServerResponse, env: HostEnv): boolean | Promise<boolean> {
    return this.#isForMe(request.url ?? "") && this.#serve(request, response, env);
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, env: HostEnv): boolean {
    if (!this.#isForMe(request.url ?? "")) return false;
    this.#wires.take(request, socket, head, env);
    return true;
  }

  async execute(ctx: ScopedContext, request: ExecuteRequest): Promise<unknown> {
    const { scope } = ctx;
    const action = this.#options.local.find(request.actionName);
    if (action === undefined) throw new MeshActionNotFoundError(request.actionName, { nodeId: this.#options.nodeId });
    const deadline = scope.deadline ?? new Deadline(this.#options.defaultTimeoutMs);
    return runLocal(this.#options, action, request.args, { ...scope, cancellation: new Cancellation(scope.cancellation) }, deadline);
  }

  idle(): Promise<void> {
    return this.#desk.idle();
  }

  callersGone(): Promise<void> {
    return this.#connections.gone();
  }

  close(): void {
    this.#wires.close();
  }

  #isForMe(url: string): boolean {
    const { rpcPath } = this.#options;
    return url === rpcPath || (url.startsWith(rpcPath) && url[rpcPath.length] === "?");
  }

  async #serve(request: IncomingMessage, response: ServerResponse, env: HostEnv): Promise<true> {
    if (request.method !== "POST") {
      refuseUnread(request, response, NOT_A_POST, this.#lingering);
      return true;
    }
    const { headers } = request;
    const posted: Posted = {
      at: this.#desk.turnBeganAt(),
      budgetMs: decodeTimeout(headers[TIMEOUT_HEADER]),
      callerNodeId: idOrNull(headers[CALLER_HEADER]),
      traceparent: headers[TRACEPARENT],
      admission: this.#gate.admit(request, env.log),
    };
    const refusal = this.#refusal(request, posted);
    if (refusal !== null) {
      refuseUnread(request, response, seal(refusal, posted), this.#lingering);
      return true;
    }
    this.#connections.note(request.socket);
    await this.#desk.during(() => this.#answerRequest(request, response, posted, env));
    return true;
  }

  /** What is decided before the body is read. */
  #refusal(request: IncomingMessage, { budgetMs, admission }: Posted): RpcAnswer | null {
    if (admission.verdict === "unauthorized") return UNAUTHORIZED;
    if (admission.verdict === "wrong-node") return this.#desk.wrongNode();
    if (admission.verdict === "too-many-callers") return this.#desk.overloaded("it remembers as many callers as it can");
    return this.#desk.refusal(budgetMs, declaredLength(request));
  }

  async #answerRequest(request: IncomingMessage, response: ServerResponse, posted: Posted, env: HostEnv): Promise<void> {
    // Before the body comes, which may be after the drain limit: then the request is cancelled with all others.
    const root = env.dispatcher.rootScope({ requestId: "" });
    const cancellation = new Cancellation(root.cancellation);
    const onClose = (): void => cancellation.abort(new MeshCancelledError("the caller has gone"));
    response.once("close", onClose);
    const answer = await this.#answer(request, response, posted, { ...root, cancellation }, env);
    response.off("close", onClose);
    cancellation.dispose();
    if (answer !== null) sendAnswer(response, seal(answer, posted));
  }

  /** Null where the body has not come, and that has been answered. */
  async #answer(request: IncomingMessage, response: ServerResponse, posted: Posted, root: RequestRoot, env: HostEnv): Promise<RpcAnswer | null> {
    const { wheel, maxBodyBytes, bodyTimeoutMs } = this.#options;
    const timeoutMs = Math.min(bodyTimeoutMs, posted.budgetMs ?? Infinity);
    const body = await readBody(request, { maxBytes: maxBodyBytes, timeoutMs, wheel });
    if ("fault" in body) {
      this.#refuseBody(body.fault, response, posted, timeoutMs);
      return null;
    }
    if (!this.#gate.admitsBody(posted.admission, body.bytes, request, env.log)) return UNAUTHORIZED;
    return this.#desk.answer(body.bytes.toString("utf8"), posted, root, env);
  }

  #refuseBody(fault: BodyFault, response: ServerResponse, posted: Posted, timeoutMs: number): void {
    if (fault === "gone") return;
    const answer = fault === "too-large" ? this.#desk.tooLarge() : this.#desk.bodyLate(timeoutMs);
    refuseAndClose(response, seal(answer, posted), this.#lingering);
  }
}

/** Signed where the request was. */
function seal(answer: RpcAnswer, { admission: { proof } }: Posted): RpcAnswer {
  return proof === null ? answer : { ...answer, signature: signAnswer(proof, answer.status, answer.body) };
}
