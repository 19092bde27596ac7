import { emitEvent } from "./emit.js";
import { serviceClient } from "./service-client.js";
import { waitFor } from "./wait-for.js";
import type { MeshNode } from "./node.js";
import type { CallOptions, EmitOptions, HostMesh, MeshClient, Peer, ServiceSource, WaitForOptions } from "../contract/mesh-client.js";
import type { Class } from "../contract/descriptor.js";
import type { ScopedContext } from "../contract/registration.js";

/** One function for the three forms of `service`, which differ in their types only. */
function clientFactory(client: MeshClient): MeshClient["service"] {
  return ((service: Class | string) => serviceClient(client, service)) as MeshClient["service"];
}

/** `ctx.mesh`: the mesh as seen from one run of a handler. */
export class ContextMesh implements MeshClient {
  readonly #node: MeshNode;
  readonly #ctx: ScopedContext;

  constructor(node: MeshNode, ctx: ScopedContext) {
    this.#node = node;
    this.#ctx = ctx;
  }

  call<T>(name: string, args?: unknown, options?: CallOptions<T>): Promise<T> {
    return this.#node.call(this.#ctx, name, args, options as CallOptions | undefined) as Promise<T>;
  }

  get service(): MeshClient["service"] {
    return clientFactory(this);
  }

  emit(event: string, payload: unknown, options?: EmitOptions): Promise<void> {
    // Not async, as `call` of `HostMeshClient`.
    try {
      return emitEvent(this.#node.running().env.outbox, this.#ctx, event, payload, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  nodeId(): string {
    return this.#node.running().env.nodeId;
  }

  peers(): readonly Peer[] {
    return this.#node.running().discovery.peers();
  }

  async waitFor(names: string | readonly string[], options: WaitForOptions = {}): Promise<void> {
    this.#node.running();
    return waitFor(typeof names === "string" ? [names] : names, this.#node, options, this.#ctx.scope);
  }
}

/** `host.mesh`: every call starts a chain of its own. */
export class HostMeshClient implements HostMesh {
  readonly #node: MeshNode;

  constructor(node: MeshNode) {
    this.#node = node;
  }

  call<T>(name: string, args?: unknown, options?: CallOptions<T>): Promise<T> {
    // Not async: that would cost each call a promise, and three turns of the microtask queue.
    try {
      return this.#client().call<T>(name, args, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  get service(): MeshClient["service"] {
    return clientFactory(this);
  }

  emit(event: string, payload: unknown, options?: EmitOptions): Promise<void> {
    try {
      return this.#client().emit(event, payload, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  nodeId(): string {
    return this.#node.running().env.nodeId;
  }

  peers(): readonly Peer[] {
    return this.#node.running().discovery.peers();
  }

  async waitFor(names: string | readonly string[], options?: WaitForOptions): Promise<void> {
    return this.#client().waitFor(names, options);
  }

  async register(...services: readonly ServiceSource[]): Promise<void> {
    return this.#node.register(services);
  }

  async unregister(...names: readonly string[]): Promise<void> {
    return this.#node.unregister(names);
  }

  #client(): ContextMesh {
    const { dispatcher } = this.#node.running().env;
    return new ContextMesh(this.#node, dispatcher.context(dispatcher.rootScope()));
  }
}
