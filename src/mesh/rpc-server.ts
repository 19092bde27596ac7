import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { MeshActionNotFoundError, MeshCallError, MeshCancelledError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshValidationError, toError } from "../errors.js";
import { timeoutError } from "../pipeline/bounded-run.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { Deadline, now } from "../pipeline/deadline.js";
import { LingerLimit } from "../pipeline/linger-limit.js";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import type { Dispatcher, HostEnv, Scope, ScopedContext } from "../contract/registration.js";
import { MAX_INPUT_DEPTH, nestsDeeperThan } from "../service/input-depth.js";
import { CallerConnections } from "./caller-connections.js";
import type { LocalActions } from "./directory.js";
import { encodeError, type Undelivered } from "./error-codec.js";
import { runLocal } from "./local-run.js";
import { LoopShare } from "./loop-share.js";
import { declaredLength, readBody, type BodyFault } from "./rpc-body.js";
import * as codec from "./rpc-codec.js";
import { RequestGate, type Admission, type RpcAuth } from "./rpc-gate.js";
import { refuseAndClose, refuseUnread, sendAnswer, type Lingering, type RpcAnswer } from "./rpc-response.js";
import { receivedScope } from "./rpc-scope.js";
import { signAnswer } from "./rpc-verifier.js";

/** The host action that the RPC route hands over to. */
export const EXECUTE_ACTION = "__chimpbase.mesh.rpc.execute";

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

export interface ExecuteRequest {
  readonly actionName: string;
  readonly args: unknown;
}

export interface RpcServer {
  /** The raw route: false where the request is for another path. Resolves when the request has been answered. */
  handle(request: IncomingMessage, response: ServerResponse, env: HostEnv): boolean | Promise<boolean>;
  /** The handler of `EXECUTE_ACTION`: runs an action of a registered service in the scope of `ctx`. */
  execute(ctx: ScopedContext, request: ExecuteRequest): Promise<unknown>;
  /** Resolves once callers have closed the connections on which they were served. */
  callersGone(): Promise<void>;
}

/** When a request came, on the monotonic clock, what its header leaves it, null where it has none, and what it has proved. */
interface Arrival {
  readonly at: number;
  readonly budgetMs: number | null;
  readonly admission: Admission;
}

type RequestRoot = Scope & { readonly cancellation: Cancellation };

interface RequestRun {
  readonly deadline: Deadline;
  /** When the body was here, on the clock of `now()`. */
  readonly readAt: number;
  /** Aborted where the caller has gone. */
  readonly cancellation: Cancellation;
  /** May refuse: for a chain that is too deep. */
  readonly scope: () => Scope;
}

const DEFAULTS = {
  rpcAuth: "token", advertisedUrl: () => null,
  maxBodyBytes: 1024 ** 2, maxResultBytes: 16 * 1024 ** 2, bodyTimeoutMs: 10_000, maxInFlight: 5_000, refuses: () => false,
} as const;

/**
 * Share of its time that a request may wait for its turn once it has been read. One that has lost more is likely to be answered when
 * nobody waits any more, and all those behind it would be later still.
 */
const LONGEST_WAIT = 0.5;

const UNAUTHORIZED: RpcAnswer = { status: 401, body: '{"ok":false,"error":"unauthorized mesh rpc"}' };
const NOT_A_POST: RpcAnswer = { status: 405, body: '{"ok":false,"error":"mesh rpc requires POST"}', allow: "POST" };
const NOT_A_REQUEST: RpcAnswer = { status: 400, body: '{"ok":false,"error":"invalid json body"}' };

export function createRpcServer(options: RpcServerOptions): RpcServer {
  return new HttpRpcServer({ stacks: process.env.NODE_ENV !== "production", ...DEFAULTS, ...options });
}

class HttpRpcServer implements RpcServer {
  readonly #options: Required<RpcServerOptions>;
  readonly #gate: RequestGate;
  readonly #connections = new CallerConnections();
  readonly #lingering: Lingering;
  readonly #loop = new LoopShare();
  #inFlight = 0;

  constructor(options: Required<RpcServerOptions>) {
    this.#options = options;
    this.#gate = new RequestGate(options);
    this.#lingering = { wheel: options.wheel, limit: new LingerLimit() };
  }

  handle(request: IncomingMessage, response: ServerResponse, env: HostEnv): boolean | Promise<boolean> {
    return this.#isForMe(request.url ?? "") && this.#serve(request, response, env);
  }

  async execute(ctx: ScopedContext, request: ExecuteRequest): Promise<unknown> {
    const { scope } = ctx;
    const action = this.#options.local.find(request.actionName);
    if (action === undefined) throw new MeshActionNotFoundError(request.actionName, { nodeId: this.#options.nodeId });
    const deadline = scope.deadline ?? new Deadline(this.#options.defaultTimeoutMs);
    return runLocal(this.#options, action, request.args, { ...scope, cancellation: new Cancellation(scope.cancellation) }, deadline);
  }

  callersGone(): Promise<void> {
    return this.#connections.gone();
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
    const budgetMs = codec.decodeTimeout(request.headers[codec.TIMEOUT_HEADER]);
    const arrival: Arrival = { at: this.#loop.turnBeganAt(), budgetMs, admission: this.#gate.admit(request, env.log) };
    const refusal = this.#refusal(request, arrival);
    if (refusal !== null) {
      refuseUnread(request, response, seal(refusal, arrival), this.#lingering);
      return true;
    }
    this.#inFlight++;
    this.#connections.note(request.socket);
    try {
      await this.#answerRequest(request, response, arrival, env);
    } finally {
      this.#inFlight--;
    }
    return true;
  }

  /** What is decided before the body is read. */
  #refusal(request: IncomingMessage, { budgetMs, admission }: Arrival): RpcAnswer | null {
    if (admission.verdict === "unauthorized") return UNAUTHORIZED;
    if (admission.verdict === "wrong-node") return this.#wrongNode();
    if (admission.verdict === "too-many-callers") return this.#overloaded("it remembers as many callers as it can");
    if (this.#options.refuses()) return this.#failure(new MeshOverloadedError("this mesh node is draining"), { undelivered: true, draining: true });
    if (this.#inFlight >= this.#options.maxInFlight) return this.#overloaded(`it works on ${this.#inFlight} requests already`);
    if (declaredLength(request) > this.#options.maxBodyBytes) return this.#tooLarge();
    if (budgetMs === 0) return this.#failure(new MeshTimeoutError("a request that came too late", 0));
    return null;
  }

  async #answerRequest(request: IncomingMessage, response: ServerResponse, arrival: Arrival, env: HostEnv): Promise<void> {
    // Before the body comes, which may be after the drain limit: then the request is cancelled with all others.
    const root = env.dispatcher.rootScope({ requestId: "" });
    const cancellation = new Cancellation(root.cancellation);
    const onClose = (): void => cancellation.abort(new MeshCancelledError("the caller has gone"));
    response.once("close", onClose);
    const answer = await this.#answer(request, response, arrival, { ...root, cancellation }, env);
    response.off("close", onClose);
    cancellation.dispose();
    if (answer !== null) sendAnswer(response, seal(answer, arrival));
  }

  /** Null where the body has not come, and that has been answered. `root` has no request id yet. */
  async #answer(request: IncomingMessage, response: ServerResponse, arrival: Arrival, root: RequestRoot, env: HostEnv): Promise<RpcAnswer | null> {
    const { wheel, maxBodyBytes, bodyTimeoutMs } = this.#options;
    const timeoutMs = Math.min(bodyTimeoutMs, arrival.budgetMs ?? Infinity);
    const body = await readBody(request, { maxBytes: maxBodyBytes, timeoutMs, wheel });
    if ("fault" in body) {
      this.#refuseBody(body.fault, response, arrival, timeoutMs);
      return null;
    }
    const readAt = this.#loop.turnBeganAt();
    if (!this.#gate.admitsBody(arrival.admission, body.bytes, request, env.log)) return UNAUTHORIZED;
    const received = codec.decodeRequest(body.bytes.toString("utf8"));
    if (received === null) return NOT_A_REQUEST;
    const { cancellation } = root;
    const deadline = this.#deadline(received, arrival);
    const scope = (): Scope => receivedScope(received, request.headers, { ...root, requestId: received.requestId ?? randomUUID() }, deadline);
    return this.#run(received, { deadline, readAt, cancellation, scope }, env);
  }

  /** The answer to a request that could be read. Never throws. */
  async #run({ actionName, args, meta }: codec.ReceivedRequest, run: RequestRun, env: HostEnv): Promise<RpcAnswer> {
    const { deadline, cancellation } = run;
    try {
      if (this.#options.local.find(actionName) === undefined) {
        return this.#failure(new MeshActionNotFoundError(actionName), { undelivered: true });
      }
      if (!this.#loop.isFree) await this.#waitForTurn(actionName, run);
      if (cancellation.aborted) throw toError(cancellation.reason);
      if (deadline.remainingMs() <= 0) throw timeoutError(actionName, deadline.budgetMs);
      const waitedMs = now() - run.readAt;
      if (waitedMs > (deadline.at - run.readAt) * LONGEST_WAIT) return this.#overloaded(`a request has waited ${Math.round(waitedMs)}ms for its turn, too much of its time`);
      if (nestsDeeperThan(args, MAX_INPUT_DEPTH) || nestsDeeperThan(meta, MAX_INPUT_DEPTH)) throw tooDeep(actionName);
      const request: ExecuteRequest = { actionName, args };
      return this.#success(actionName, await env.action(EXECUTE_ACTION, request, run.scope()));
    } catch (error) {
      return this.#failure(error);
    }
  }

  /** No longer than the caller does. */
  async #waitForTurn(actionName: string, { deadline, cancellation }: RequestRun): Promise<void> {
    const late = this.#options.wheel.add(deadline.remainingMs(), () => cancellation.abort(timeoutError(actionName, deadline.budgetMs)));
    await this.#loop.turn(cancellation);
    late.cancel();
  }

  #deadline(received: codec.ReceivedRequest, arrival: Arrival): Deadline {
    const budgetMs = arrival.budgetMs ?? received.deadlineMs ?? this.#options.defaultTimeoutMs;
    return new Deadline(budgetMs, arrival.at + budgetMs);
  }

  #refuseBody(fault: BodyFault, response: ServerResponse, arrival: Arrival, timeoutMs: number): void {
    if (fault === "gone") return;
    const answer = fault === "too-large" ? this.#tooLarge() : this.#failure(new MeshTimeoutError("a request whose body did not come", timeoutMs));
    refuseAndClose(response, seal(answer, arrival), this.#lingering);
  }

  #success(actionName: string, result: unknown): RpcAnswer {
    const body = codec.encodeResult(actionName, result);
    const limit = this.#options.maxResultBytes;
    if (body.length * 3 > limit && Buffer.byteLength(body) > limit) throw new MeshPayloadTooLargeError(`the result of ${actionName} is longer than ${limit} bytes`);
    return { status: 200, body };
  }

  #overloaded(reason: string): RpcAnswer {
    return this.#failure(new MeshOverloadedError(`this mesh node has too much to do: ${reason}`), { undelivered: true });
  }

  #failure(error: unknown, extra?: Undelivered): RpcAnswer {
    return encodeError(error, this.#options, extra);
  }

  /** With its own address, by which the caller can tell that nobody else can have had the request. */
  #wrongNode(): RpcAnswer {
    const { nodeId, advertisedUrl } = this.#options;
    const options = { code: "WRONG_NODE", status: 421, data: { advertisedUrl: advertisedUrl() } };
    return this.#failure(new MeshCallError(`this is mesh node ${nodeId}, not the one that the request is for`, options), { undelivered: true });
  }

  #tooLarge(): RpcAnswer {
    const error = new MeshPayloadTooLargeError(`the request body is longer than maxBodyBytes (${this.#options.maxBodyBytes})`);
    return { ...this.#failure(error), close: true };
  }
}

/** Signed where the request was. */
function seal(answer: RpcAnswer, { admission: { proof } }: Arrival): RpcAnswer {
  return proof === null ? answer : { ...answer, signature: signAnswer(proof, answer.status, answer.body) };
}

function tooDeep(actionName: string): MeshValidationError {
  const message = `input of ${actionName} must not nest deeper than ${MAX_INPUT_DEPTH} levels`;
  return new MeshValidationError(message, [{ path: "", message, constraint: "maxDepth" }]);
}
