import { MeshConfigurationError, MeshNoAvailableNodeError, MeshTimeoutError, isRetryable, toError } from "../errors.js";
import { interruption, settleWithin, timeoutError } from "../pipeline/bounded-run.js";
import { enterCall } from "../pipeline/call-depth.js";
import { Cancellation } from "../pipeline/cancellation.js";
import type { Deadline } from "../pipeline/deadline.js";
import { composeMiddleware } from "../pipeline/middleware.js";
import { NO_RETRY, pause, retryDelay } from "../pipeline/retry.js";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import type { YoungRuns } from "../pipeline/young-runs.js";
import type { CallMiddleware, CallOptions, Strategy } from "../contract/mesh-client.js";
import type { CancellationView, Dispatcher, ScopedContext } from "../contract/registration.js";
import { Balancer } from "./balancing.js";
import { resolvePolicy, type CallDefaults, type CallPolicy } from "./call-options.js";
import type { DeclaredPolicy } from "./declared-policy.js";
import type { Candidate, LocalActions, NodeDirectory } from "./directory.js";
import { runLocal } from "./local-run.js";
import { mergeMeta } from "./meta.js";
import { notRunning } from "./not-running.js";
import { PlannedCall } from "./planned-call.js";
import { newestActions } from "./rpc-scope.js";
import type { RpcRequest, RpcTransport } from "./rpc-transport.js";
import { clearUndelivered, isUndelivered } from "./undelivered.js";

export interface CallerOptions {
  readonly nodeId: string;
  readonly dispatcher: Dispatcher;
  readonly local: LocalActions;
  readonly directory: NodeDirectory;
  readonly transport: RpcTransport;
  readonly wheel: TimerWheel;
  readonly young: YoungRuns;
  readonly middleware: readonly CallMiddleware[];
  readonly defaults: { readonly strategy: Strategy; readonly timeoutMs: number; readonly retries: number };
  /** This node's own load, 0 to 1, for the strategy `cpu`. Default: 0. */
  readonly cpuLoad?: () => number;
  /** Aborted when the node closes: calls do not wait for another try then. Default: never. */
  readonly closing?: CancellationView;
}

export interface MeshCaller {
  /** Calls an action of the cluster from `ctx`. `name` is the full name. */
  call(ctx: ScopedContext, name: string, args: unknown, options: CallOptions | undefined): Promise<unknown>;
}

interface AttemptRun {
  readonly deadline: Deadline;
  readonly cancellation: Cancellation;
}

const SAME_MOMENT_MS = 20;
const NO_OPTIONS: CallOptions = Object.freeze({});

/** Policies outside in: middleware, fallback, deadline, retry, pick a node, transport. */
export function createCaller(options: CallerOptions): MeshCaller {
  const engine = new CallEngine(options);
  const orphan = (): ScopedContext => options.dispatcher.context(options.dispatcher.rootScope());
  const run = composeMiddleware<ScopedContext>(options.middleware, (ctx, name, args, given) => engine.run(ctx, name, args, given), orphan);
  return { call: (ctx, name, args, given) => run(ctx, name, args, given ?? NO_OPTIONS) };
}

class CallEngine {
  readonly #parts: CallerOptions;
  readonly #defaults: CallDefaults;
  readonly #usual: CallPolicy;
  readonly #balancer = new Balancer();
  readonly #self: Candidate;

  constructor(parts: CallerOptions) {
    this.#parts = parts;
    const { strategy, timeoutMs, retries } = parts.defaults;
    this.#defaults = { strategy, timeoutMs, retry: { ...NO_RETRY, attempts: retries } };
    this.#usual = resolvePolicy(NO_OPTIONS, undefined, this.#defaults);
    const cpuLoad = parts.cpuLoad ?? (() => 0);
    this.#self = { nodeId: parts.nodeId, advertisedUrl: "", rpcPath: "", get cpuLoad() { return cpuLoad(); } };
  }

  run(ctx: ScopedContext, name: string, args: unknown, options: CallOptions): Promise<unknown> {
    let call: PlannedCall;
    try {
      call = this.#plan(ctx, name, args, options);
    } catch (error) {
      return Promise.reject(error);
    }
    const result = this.#start(call);
    const { fallback } = options;
    if (fallback === undefined) return result;
    // A caller that has cancelled wants no result, not even a stand-in.
    return result.catch((error: unknown) => (call.cancelledByCaller ? Promise.reject(error) : fallback(toError(error))));
  }

  #plan(ctx: ScopedContext, name: string, args: unknown, options: CallOptions): PlannedCall {
    if (typeof name !== "string" || name === "") throw new MeshConfigurationError(`the name of an action must be a string like "v1.users.create", got ${String(name)}`);
    const { scope } = ctx;
    const local = this.#parts.local.find(name);
    const policy = this.#policy(options, local ?? this.#parts.directory.declared(name));
    const step = enterCall(scope, name);
    const meta = options.meta === undefined ? scope.meta : mergeMeta(scope.meta, options.meta);
    return new PlannedCall(scope, name, args, options, policy, local, step, meta);
  }

  /** In most calls nobody asks for anything else than the defaults. */
  #policy(options: CallOptions, declared: DeclaredPolicy | undefined): CallPolicy {
    const isDefault = options === NO_OPTIONS && declared?.timeoutMs === undefined && declared?.retry === undefined;
    return isDefault ? this.#usual : resolvePolicy(options, declared, this.#defaults);
  }

  /** Fails before anything is sent where the call is over already, else runs it to its end. */
  #start(call: PlannedCall): Promise<unknown> {
    const { cancellation, deadline } = call;
    if (cancellation.aborted) return Promise.reject(interruption(call.name, deadline.budgetMs, cancellation.reason));
    if (deadline.budgetMs <= 0) return Promise.reject(timeoutError(call.name, 0));
    if (call.policy.retry.attempts === 0 && call.options.signal === undefined) return this.#attempt(call, 0, cancellation);
    return this.#withRetries(call);
  }

  async #withRetries(call: PlannedCall): Promise<unknown> {
    const { attempts } = call.policy.retry;
    const unlink = call.followSignal();
    try {
      for (let left = attempts; ; left--) {
        try {
          return await this.#attempt(call, left, new Cancellation(call.cancellation));
        } catch (error) {
          if (left === 0 || !isRetryable(error)) throw error;
          await this.#pauseBeforeRetry(call, attempts - left + 1, error);
        }
      }
    } finally {
      unlink();
    }
  }

  async #pauseBeforeRetry(call: PlannedCall, retry: number, cause: unknown): Promise<void> {
    const { cancellation, deadline, policy } = call;
    const { closing, wheel } = this.#parts;
    const waiting = new Cancellation(cancellation);
    const unlink = closing?.onAbort((reason) => waiting.abort(reason));
    if (!waiting.aborted) await pause(wheel, Math.min(retryDelay(policy.retry, retry), deadline.remainingMs()), waiting);
    unlink?.();
    waiting.dispose();
    if (cancellation.aborted) throw interruption(call.name, deadline.budgetMs, cancellation.reason);
    if (closing?.aborted === true) throw notRunning(true, cause);
    if (deadline.remainingMs() <= 0) throw timeoutError(call.name, deadline.budgetMs, { cause });
  }

  #attempt(call: PlannedCall, attemptsLeft: number, cancellation: Cancellation): Promise<unknown> {
    const node = this.#pick(call);
    if (node === undefined) return Promise.reject(new MeshNoAvailableNodeError(call.name));
    const run: AttemptRun = { deadline: call.attemptDeadline(attemptsLeft), cancellation };
    if (node === this.#self && attemptsLeft === 0) return this.#runHere(call, run);
    return this.#ask(call, node, run);
  }

  #runHere(call: PlannedCall, run: AttemptRun): Promise<unknown> {
    const { scope } = call;
    const { nodeId } = this.#parts;
    return runLocal(this.#parts, call.local!, call.args, {
      requestId: scope.requestId,
      meta: call.meta,
      caller: { nodeId, action: scope.chain?.action ?? null },
      level: call.step.level,
      chain: call.step.chain,
      cancellation: run.cancellation,
    }, run.deadline);
  }

  async #ask(call: PlannedCall, first: Candidate, run: AttemptRun): Promise<unknown> {
    try {
      return await this.#askInTurn(call, first, run);
    } finally {
      run.cancellation.dispose();
    }
  }

  /** A request that reached no handler goes on to a node not yet tried, within the same attempt. */
  async #askInTurn(call: PlannedCall, first: Candidate, { deadline, cancellation }: AttemptRun): Promise<unknown> {
    for (let node = first; ; ) {
      const run: AttemptRun = { deadline, cancellation: new Cancellation(cancellation) };
      try {
        return await (node === this.#self ? this.#runHere(call, run) : this.#send(call, node, run));
      } catch (error) {
        call.markFailed(node.nodeId);
        if (!isUndelivered(error)) throw error;
        clearUndelivered(error);
        const next = this.#pick(call);
        if (next === undefined || call.hasFailed(next.nodeId)) throw error;
        node = next;
      }
    }
  }

  #send(call: PlannedCall, peer: Candidate, run: AttemptRun): Promise<unknown> {
    const { scope } = call;
    const request: RpcRequest = {
      actionName: call.name,
      args: call.args,
      meta: call.meta,
      requestId: scope.requestId,
      level: call.step.level,
      chain: newestActions(scope.chain),
    };
    const { deadline, cancellation } = run;
    const answer = this.#parts.transport.send(peer, request, deadline, cancellation);
    const work = answer.catch((error: unknown) => Promise.reject(underOwnName(error, call, peer, deadline)));
    return settleWithin(work, { wheel: this.#parts.wheel, deadline, cancellation, action: call.name, nodeId: peer.nodeId });
  }

  /** The node for the next attempt: one that has not failed in this call, as long as there is one. */
  #pick(call: PlannedCall): Candidate | undefined {
    const { nodeId } = call.options;
    call.local = this.#parts.local.find(call.name);
    const self = call.local === undefined ? undefined : this.#self;
    if (nodeId !== undefined) return nodeId === this.#self.nodeId ? self : this.#parts.directory.candidate(nodeId, call.name);
    const { strategy } = call.policy;
    if (self !== undefined && strategy === "local-first" && !call.hasFailed(self.nodeId)) return self;
    const peers = this.#parts.directory.candidates(call.name);
    if (call.failed === undefined) return this.#balancer.select(strategy, call.name, peers, self);
    const fresh = peers.filter((peer) => !call.hasFailed(peer.nodeId));
    const freshSelf = self !== undefined && call.hasFailed(self.nodeId) ? undefined : self;
    return this.#balancer.select(strategy, call.name, fresh, freshSelf) ?? this.#balancer.select(strategy, call.name, peers, self);
  }
}

/** The peer has the same deadline, and may say so a moment earlier: the caller is told in the terms of its own budget. */
function underOwnName(error: unknown, call: PlannedCall, peer: Candidate, deadline: Deadline): unknown {
  const isDeadline = error instanceof MeshTimeoutError && deadline.remainingMs() <= SAME_MOMENT_MS;
  return isDeadline ? timeoutError(call.name, deadline.budgetMs, { nodeId: peer.nodeId, cause: error }) : error;
}
