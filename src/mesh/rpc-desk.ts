import { randomUUID } from "node:crypto";
import { MeshActionNotFoundError, MeshCallError, MeshOverloadedError, MeshPayloadTooLargeError, MeshTimeoutError, MeshValidationError, toError } from "../errors.js";
import { timeoutError } from "../pipeline/bounded-run.js";
import type { Cancellation } from "../pipeline/cancellation.js";
import { Deadline, now } from "../pipeline/deadline.js";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import type { HostEnv, Scope } from "../contract/registration.js";
import { MAX_INPUT_DEPTH, nestsDeeperThan } from "../service/input-depth.js";
import type { LocalActions } from "./directory.js";
import { encodeError, type Undelivered } from "./error-codec.js";
import { LoopShare } from "./loop-share.js";
import * as codec from "./rpc-codec.js";
import type { RpcAnswer } from "./rpc-response.js";
import { receivedScope, type SenderHints } from "./rpc-scope.js";

/** The host action that all requests of peers are handed over to. */
export const EXECUTE_ACTION = "__chimpbase.mesh.rpc.execute";

export interface ExecuteRequest {
  readonly actionName: string;
  readonly args: unknown;
}

export interface RpcDeskOptions {
  readonly nodeId: string;
  readonly local: LocalActions;
  readonly wheel: TimerWheel;
  readonly defaultTimeoutMs: number;
  readonly maxBodyBytes: number;
  readonly maxResultBytes: number;
  readonly maxInFlight: number;
  readonly advertisedUrl: () => string | null;
  readonly refuses: () => boolean;
  readonly stacks: boolean;
}

/** What is known of a request beside its body. */
export interface Arrival extends SenderHints {
  /** When it came, on the monotonic clock. */
  readonly at: number;
  /** What remains to the caller; null where it does not say so. */
  readonly budgetMs: number | null;
}

/** The scope that a request starts from, made when it came: it has no request id yet. Aborted where the caller has gone. */
export type RequestRoot = Scope & { readonly cancellation: Cancellation };

interface RequestRun {
  readonly deadline: Deadline;
  /** When the body was here, on the clock of `now()`. */
  readonly readAt: number;
  readonly cancellation: Cancellation;
  /** May refuse: for a chain that is too deep. */
  readonly scope: () => Scope;
}

/**
 * Share of its time that a request may wait for its turn once it has been read. One that has lost more is likely to be answered when
 * nobody waits any more, and all those behind it would be later still.
 */
export const LONGEST_WAIT = 0.5;
/** The same for one that comes, by what is known then: less, so that hardly any is refused after it has waited. */
export const LONGEST_EXPECTED_WAIT = 0.4;

const NOT_A_REQUEST: RpcAnswer = { status: 400, body: '{"ok":false,"error":"invalid json body"}' };

/** Which requests of peers are taken, and what they are answered, whichever way they came. */
export class RpcDesk {
  readonly #options: RpcDeskOptions;
  readonly #loop = new LoopShare();
  #inFlight = 0;
  #onIdle: () => void = () => undefined;

  constructor(options: RpcDeskOptions) {
    this.#options = options;
  }

  /** When the turn of the event loop began in which this is called, on the monotonic clock. */
  turnBeganAt(): number {
    return this.#loop.turnBeganAt();
  }

  /** Why a request is not taken, decided before its body is looked at; null where it is. `bytes`: of its body, NaN where not known yet. */
  refusal(budgetMs: number | null, bytes: number): RpcAnswer | null {
    if (this.#options.refuses()) return this.draining();
    if (this.#inFlight >= this.#options.maxInFlight) return this.overloaded(`it works on ${this.#inFlight} requests already`);
    if (bytes > this.#options.maxBodyBytes) return this.tooLarge();
    if (budgetMs === 0) return this.#failure(new MeshTimeoutError("a request that came too late", 0));
    return null;
  }

  /** Counts a request that is taken as under way until `work` has settled. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#inFlight++;
    try {
      return await work();
    } finally {
      if (--this.#inFlight === 0) this.#onIdle();
    }
  }

  /** Resolves when no request is under way. */
  idle(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => (this.#onIdle = resolve));
  }

  /** The answer to a request whose body is here. Never throws. */
  async answer(body: string, arrival: Arrival, root: RequestRoot, env: HostEnv): Promise<RpcAnswer> {
    const readAt = this.#loop.turnBeganAt();
    const received = codec.decodeRequest(body);
    if (received === null) return NOT_A_REQUEST;
    const deadline = this.#deadline(received, arrival);
    const scope = (): Scope => receivedScope(received, arrival, { ...root, requestId: received.requestId ?? randomUUID() }, deadline);
    return this.#run(received, { deadline, readAt, cancellation: root.cancellation, scope }, env);
  }

  draining(): RpcAnswer {
    return this.#failure(new MeshOverloadedError("this mesh node is draining"), { undelivered: true, draining: true });
  }

  overloaded(reason: string): RpcAnswer {
    return this.#failure(new MeshOverloadedError(`this mesh node has too much to do: ${reason}`), { undelivered: true });
  }

  /** With its own address, by which the caller can tell that nobody else can have had the request. */
  wrongNode(): RpcAnswer {
    const { nodeId, advertisedUrl } = this.#options;
    const options = { code: "WRONG_NODE", status: 421, data: { advertisedUrl: advertisedUrl() } };
    return this.#failure(new MeshCallError(`this is mesh node ${nodeId}, not the one that the request is for`, options), { undelivered: true });
  }

  tooLarge(): RpcAnswer {
    const error = new MeshPayloadTooLargeError(`the request body is longer than maxBodyBytes (${this.#options.maxBodyBytes})`);
    return { ...this.#failure(error), close: true };
  }

  bodyLate(afterMs: number): RpcAnswer {
    return this.#failure(new MeshTimeoutError("a request whose body did not come", afterMs));
  }

  async #run(received: codec.ReceivedRequest, run: RequestRun, env: HostEnv): Promise<RpcAnswer> {
    const { actionName, args, meta } = received;
    const { deadline, cancellation, readAt } = run;
    try {
      const refusal = this.#notHere(actionName) ?? this.#crowded(deadline);
      if (refusal !== null) return refusal;
      if (!this.#loop.isFree) {
        await this.#waitForTurn(actionName, run);
        // Nothing of it has begun: what has changed meanwhile sends it to another node.
        const changed = this.#options.refuses() ? this.draining() : this.#notHere(actionName);
        if (changed !== null) return changed;
      }
      if (cancellation.aborted) throw toError(cancellation.reason);
      if (deadline.remainingMs() <= 0) throw timeoutError(actionName, deadline.budgetMs);
      const waitedMs = now() - readAt;
      if (waitedMs > (deadline.at - readAt) * LONGEST_WAIT) return this.overloaded(`a request has waited ${Math.round(waitedMs)}ms for its turn, too much of its time`);
      if (nestsDeeperThan(args, MAX_INPUT_DEPTH) || nestsDeeperThan(meta, MAX_INPUT_DEPTH)) throw tooDeep(actionName);
      const request: ExecuteRequest = { actionName, args };
      return this.#success(actionName, await env.action(EXECUTE_ACTION, request, run.scope()));
    } catch (error) {
      return this.#failure(error);
    }
  }

  #notHere(actionName: string): RpcAnswer | null {
    return this.#options.local.find(actionName) === undefined ? this.#failure(new MeshActionNotFoundError(actionName), { undelivered: true }) : null;
  }

  /** Where the requests before it would keep the event loop for too much of its time. */
  #crowded(deadline: Deadline): RpcAnswer | null {
    if (this.#loop.isFree) return null;
    const { expectedWaitMs } = this.#loop;
    if (expectedWaitMs <= deadline.remainingMs() * LONGEST_EXPECTED_WAIT) return null;
    return this.overloaded(`a request would wait ${Math.round(expectedWaitMs)}ms for its turn, too much of its time`);
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

  #success(actionName: string, result: unknown): RpcAnswer {
    const body = codec.encodeResult(actionName, result);
    const limit = this.#options.maxResultBytes;
    if (!codec.isAtMost(body, limit)) throw new MeshPayloadTooLargeError(`the result of ${actionName} is longer than ${limit} bytes`);
    return { status: 200, body };
  }

  #failure(error: unknown, extra?: Undelivered): RpcAnswer {
    return encodeError(error, this.#options, extra);
  }
}

function tooDeep(actionName: string): MeshValidationError {
  const message = `input of ${actionName} must not nest deeper than ${MAX_INPUT_DEPTH} levels`;
  return new MeshValidationError(message, [{ path: "", message, constraint: "maxDepth" }]);
}
