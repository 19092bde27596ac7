import type { NodeDirectory, LocalActions } from "./directory.js";
import type { ResolvedMeshOptions } from "./options.js";
import type { CallOptions, MeshClient, ServiceClient } from "../contract/mesh-client.js";
import type { Class } from "../contract/descriptor.js";
import type { HostEnv, ScopedContext } from "../contract/registration.js";

export interface WireOptions {
  readonly env: HostEnv;
  readonly options: ResolvedMeshOptions;
  readonly local: LocalActions;
  readonly directory: NodeDirectory;
  readonly cpuLoad: () => number;
}

export interface Wire {
  readonly caller: { call(ctx: ScopedContext, name: string, args: unknown, options: CallOptions | undefined): Promise<unknown> };
  drop(nodeId: string): void;
  close(): Promise<void>;
}

export function openWire(_options: WireOptions): Wire {
  throw new Error("stub");
}
export function serviceClient<S extends object>(_client: Pick<MeshClient, "call">, _service: Class<S> | string): ServiceClient<S> {
  throw new Error("stub");
}
