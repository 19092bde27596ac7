import { randomUUID } from "node:crypto";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { TimerWheel } from "#mesh/pipeline/timer-wheel.js";
import { YoungRuns } from "#mesh/pipeline/young-runs.js";
import { createCaller, type CallerOptions } from "#mesh/mesh/call.js";
import type { CallOptions } from "#mesh/contract/mesh-client.js";
import type { DeclaredPolicy } from "#mesh/mesh/declared-policy.js";
import type { Candidate, LocalAction, LocalActions, NodeDirectory } from "#mesh/mesh/directory.js";
import type { BegunRun, Dispatcher, Scope, ScopedContext, Target } from "#mesh/contract/registration.js";
import type { RpcRequest, RpcTransport } from "#mesh/mesh/rpc-transport.js";

export type Handler = (ctx: TestContext, args: unknown) => unknown;

/** The part of a context that calls and their handlers use. */
export interface TestContext extends ScopedContext {
  call(name: string, args?: unknown, options?: CallOptions): Promise<unknown>;
}

/** Runs handlers with a context that has just the scope, its signal, and `call`. */
export class TestDispatcher implements Dispatcher {
  drain = new Cancellation();
  call: ((ctx: ScopedContext, name: string, args: unknown, options?: CallOptions) => Promise<unknown>) | undefined;

  async dispatch(target: Target, args: unknown, scope: Scope): Promise<unknown> {
    return target.handler(this.context(scope), target.validate === undefined ? args : await target.validate(args));
  }

  run(target: Target, args: unknown, scope: Scope): unknown {
    return this.dispatch(target, args, scope);
  }

  begin(target: Target, args: unknown, scope: Scope): BegunRun {
    const result = this.dispatch(target, args, scope);
    return { result, pending: result, end: () => undefined };
  }

  /** As the host's dispatcher does: what starts afterwards is not cancelled. */
  cancelAll(reason: Error): void {
    const { drain } = this;
    this.drain = new Cancellation();
    drain.abort(reason);
  }

  rootScope(overrides: Partial<Scope> = {}): Scope {
    return { requestId: randomUUID(), meta: {}, caller: null, level: 0, chain: null, deadline: null, cancellation: this.drain, ...overrides };
  }

  context(scope: Scope): ScopedContext {
    const call = (name: string, args?: unknown, options?: CallOptions) => this.call!(ctx, name, args, options);
    const ctx: ScopedContext = {
      scope,
      call,
      get signal() { return scope.cancellation.signal; },
      get deadline() { return scope.deadline === null ? null : scope.deadline.remainingMs(); },
      requestId: scope.requestId,
      meta: scope.meta,
      caller: scope.caller,
      level: scope.level,
    } as unknown as TestContext;
    return ctx;
  }
}

export class TestActions implements LocalActions {
  readonly #actions = new Map<string, LocalAction>();

  add(name: string, handler: Handler, declared: Partial<LocalAction> = {}): this {
    const target: Target = { kind: "action", name, handler: handler as Target["handler"] };
    this.#actions.set(name, { name, target, ...declared });
    return this;
  }

  remove(name: string): void {
    this.#actions.delete(name);
  }

  find(action: string): LocalAction | undefined {
    return this.#actions.get(action);
  }
}

export class TestDirectory implements NodeDirectory {
  readonly suspected: string[] = [];
  readonly policies = new Map<string, DeclaredPolicy>();
  readonly #serving = new Map<string, Candidate[]>();

  serve(action: string, ...peers: Candidate[]): this {
    this.#serving.set(action, [...(this.#serving.get(action) ?? []), ...peers]);
    return this;
  }

  candidates(action: string): readonly Candidate[] {
    return this.#serving.get(action) ?? [];
  }

  candidate(nodeId: string, action: string): Candidate | undefined {
    return this.candidates(action).find((peer) => peer.nodeId === nodeId);
  }

  declared(action: string): DeclaredPolicy | undefined {
    return this.policies.get(action);
  }

  suspect(nodeId: string): void {
    this.suspected.push(nodeId);
  }
}

export function peer(nodeId: string, more: Partial<Candidate> = {}): Candidate {
  return { nodeId, advertisedUrl: "http://127.0.0.1:1", rpcPath: "/rpc", cpuLoad: 0, ...more };
}

export type Answer = (peer: Candidate, request: RpcRequest, control: { readonly remainingMs: number; readonly signal: AbortSignal }) => unknown;

/** A transport that answers from a function, and keeps what was asked. */
export class TestTransport implements RpcTransport {
  readonly asked: string[] = [];
  readonly requests: RpcRequest[] = [];
  readonly #answer: Answer;

  constructor(answer: Answer) {
    this.#answer = answer;
  }

  async send(...[to, request, deadline, cancellation]: Parameters<RpcTransport["send"]>): Promise<unknown> {
    this.asked.push(to.nodeId);
    this.requests.push(request);
    return this.#answer(to, request, { remainingMs: deadline.remainingMs(), signal: cancellation.signal });
  }

  drop(): void {}

  async close(): Promise<void> {}
}

export interface CallFixtureOptions {
  readonly actions?: TestActions;
  readonly directory?: TestDirectory;
  readonly answer?: Answer;
  readonly middleware?: CallerOptions["middleware"];
  readonly defaults?: Partial<CallerOptions["defaults"]>;
  readonly cpuLoad?: () => number;
}

/** A node that calls, with everything around it under the test's control. */
export function callFixture(options: CallFixtureOptions = {}) {
  const dispatcher = new TestDispatcher();
  const wheel = new TimerWheel();
  const actions = options.actions ?? new TestActions();
  const directory = options.directory ?? new TestDirectory();
  const transport = new TestTransport(options.answer ?? (() => "remote"));
  const caller = createCaller({
    nodeId: "self", dispatcher, local: actions, directory, transport, wheel, young: new YoungRuns(),
    middleware: options.middleware ?? [],
    defaults: { strategy: "local-first", timeoutMs: 5000, retries: 0, ...options.defaults },
    ...(options.cpuLoad === undefined ? {} : { cpuLoad: options.cpuLoad }),
  });
  dispatcher.call = (ctx, name, args, given) => caller.call(ctx, name, args, given);
  const call = (name: string, args?: unknown, given?: CallOptions, scope?: Partial<Scope>) =>
    caller.call(dispatcher.context(dispatcher.rootScope(scope)), name, args, given);
  return { dispatcher, wheel, actions, directory, transport, caller, call };
}
