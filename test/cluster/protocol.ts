import type { CallOptions, EmitOptions, Peer, WaitForOptions } from "@chimpbase/mesh";

/** What a node's process is told at birth. */
export interface NodeConfig {
  readonly name: string;
  readonly database: string;
  readonly logLevel?: "debug" | "info" | "warn" | "error" | "silent";
  /** Over the mesh options of the node; JSON only. */
  readonly mesh?: object;
  /** By name. Default: the `MESH_TOKEN` that all nodes share. */
  readonly secrets?: Readonly<Record<string, string>>;
  /** How wrong the node's own clock is. */
  readonly clockOffsetMs?: number;
}

/** What a run of `probe.about` sees. */
export interface About {
  readonly nodeId: string;
  readonly deadline: number | null;
  readonly level: number;
  readonly meta: Readonly<Record<string, unknown>>;
  readonly caller: { readonly nodeId: string; readonly action: string | null } | null;
  readonly clockMs: number;
}

/** Arguments of `probe.relay`: calls `action` on the last of `nodeIds`, through all that stand before it. */
export interface Route {
  readonly nodeIds: readonly string[];
  readonly action: string;
  readonly args?: unknown;
}

export interface LoadReport {
  readonly calls: number;
  readonly failures: readonly string[];
}

export interface NodeCommands {
  start(): Promise<{ readonly nodeId: string; readonly url: string }>;
  stop(): Promise<void>;
  call(name: string, args?: unknown, options?: CallOptions): Promise<unknown>;
  /** A call that its caller cancels after so many ms; resolves with the code of the error. */
  cancelled(name: string, args: unknown, afterMs: number, options?: CallOptions): Promise<string>;
  /** Calls without end, so many at a time, until `endLoad`. */
  beginLoad(name: string, atOnce: number, options?: CallOptions): Promise<void>;
  endLoad(): Promise<LoadReport>;
  emit(event: string, payload: unknown, options?: EmitOptions): Promise<void>;
  peers(): Promise<readonly Peer[]>;
  waitFor(names: readonly string[], options?: WaitForOptions): Promise<void>;
  addReports(): Promise<void>;
  removeReports(): Promise<void>;
  /** What its event handlers have got, in order. */
  received(): Promise<readonly string[]>;
  /** Peers that have left its cache, in order. */
  gone(): Promise<readonly string[]>;
}
