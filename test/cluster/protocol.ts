import type { CallOptions, EmitOptions, Peer, WaitForOptions } from "@chimpbase/mesh";

/** What a node's process is told at birth. */
export interface NodeConfig {
  readonly name: string;
  readonly database: string;
  readonly logLevel?: "debug" | "info" | "warn" | "error" | "silent";
  /** Over the mesh options of the node; JSON only. */
  readonly mesh?: object;
}

export interface NodeCommands {
  start(): Promise<{ readonly nodeId: string; readonly url: string }>;
  stop(): Promise<void>;
  call(name: string, args?: unknown, options?: CallOptions): Promise<unknown>;
  emit(event: string, payload: unknown, options?: EmitOptions): Promise<void>;
  peers(): Promise<readonly Peer[]>;
  waitFor(names: readonly string[], options?: WaitForOptions): Promise<void>;
  addReports(): Promise<void>;
  removeReports(): Promise<void>;
  /** What its event handlers have got, in order. */
  received(): Promise<readonly string[]>;
}
