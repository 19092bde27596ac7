import { MeshActionNotFoundError } from "../errors.js";
import { enterCall } from "../pipeline/call-depth.js";
import type { ActionRegistration, Dispatcher, Scope, Target } from "../contract/registration.js";

/** The host actions, and the ways to run one. */
export class HostActions {
  readonly #targets = new Map<string, Target>();
  readonly #nodeId: string;

  constructor(registrations: readonly ActionRegistration[], nodeId: string) {
    this.#nodeId = nodeId;
    for (const { name, handler } of registrations) {
      this.#targets.set(name, { kind: "action", name, handler: (ctx, args) => handler(ctx, args as never) });
    }
  }

  /** In exactly this scope. */
  async run(dispatcher: Dispatcher, name: string, args: unknown, scope: Scope): Promise<unknown> {
    return dispatcher.dispatch(this.#find(name), args, scope);
  }

  /** As the next step of `scope`'s call chain: in its transaction, within its deadline. */
  async call(dispatcher: Dispatcher, name: string, args: unknown, scope: Scope): Promise<unknown> {
    const target = this.#find(name);
    const { event: _outer, ...shared } = scope;
    const caller = { nodeId: this.#nodeId, action: scope.chain?.action ?? null };
    return dispatcher.dispatch(target, args, { ...shared, ...enterCall(scope, name), caller });
  }

  #find(name: string): Target {
    const target = this.#targets.get(name);
    if (target === undefined) throw new MeshActionNotFoundError(String(name));
    return target;
  }
}
