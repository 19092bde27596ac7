import type { Strategy } from "@chimpbase/mesh";
import type { Entry } from "./history.js";

/** Short, so that a run is short. */
export const HEARTBEAT_MS = 300;
export const OFFLINE_AFTER_MS = 1_000;
export const LEASE_MS = 1_500;
export const POOL_SIZE = 10;
/** Of the balanced event: each gets every one. */
export const GROUPS = ["probe", "mirror"] as const;

/** What a node's process is told at birth. */
export interface NodeConfig {
  readonly name: string;
  readonly database: string;
  readonly port: number;
  readonly advertisedUrl: string;
  readonly rpcAuth: "token" | "signed";
  /** How far its clock is ahead, in ms. */
  readonly clockMs: number;
  /** With it, the node follows `fault.kept` over a second bus of this retention. */
  readonly retentionMs?: number;
}

export const QUERY_LIMIT_MS = 800;

/** Steady load that a node makes, per second. */
export interface Load {
  /** Half of them with `retry: { attempts: 2 }`, half without. */
  readonly calls?: number;
  readonly strategy?: Strategy;
  /** Pins the calls to one node. */
  readonly nodeId?: string;
  /** Budget of a call. */
  readonly timeoutMs?: number;
  /** How long the action runs. */
  readonly workMs?: number;
  /** Calls go to an action that keeps the processor busy for so long instead. */
  readonly burnMs?: number;
  /** Tries after the first, of all calls. */
  readonly attempts?: number;
  readonly balanced?: number;
  /** How long each group's handler of a balanced event runs after its write. */
  readonly jobMs?: number;
  readonly broadcasts?: number;
  /** One in three rolls back. */
  readonly transactions?: number;
  /** Local calls that ask the database, each with a budget of `QUERY_LIMIT_MS`. */
  readonly queries?: number;
  /** Broadcasts over the bus with a short retention. */
  readonly kept?: number;
}

/** Calls made one after the other, in so many loops. */
export interface Saturation {
  readonly nodeId: string;
  readonly concurrency: number;
  readonly burnMs: number;
  readonly lengthMs: number;
}

/** What a process holds, without garbage, in bytes. */
export interface Memory {
  readonly rss: number;
  readonly heapUsed: number;
}

export interface NodeCommands {
  start(): Promise<{ readonly nodeId: string }>;
  stop(): Promise<void>;
  /** Replaces the load that is on. */
  load(load: Load): Promise<void>;
  /** Ends the load; resolves when what was under way has ended. */
  quiet(): Promise<void>;
  peers(): Promise<readonly string[]>;
  /** True where the call came back from that node. */
  reaches(nodeId: string): Promise<boolean>;
  /** Holds all connections of its pool, each in a transaction, for this long. */
  hog(ms: number): Promise<void>;
  /** So many calls to the other nodes, and as many events, as fast as they go; one event in five is balanced. */
  exercise(rounds: number): Promise<void>;
  /** Events of all nodes' exercises that have come here. */
  exercised(): Promise<{ readonly broadcasts: number; readonly balanced: number }>;
  /** What the other node serves at most, in calls a second. */
  saturate(saturation: Saturation): Promise<number>;
  memory(): Promise<Memory>;
  /** Stops, or waits for the end of a stop by SIGTERM, and lets go of the parent: the process must end by itself. */
  leave(): Promise<void>;
}

/** Sent unasked. */
export interface Report {
  readonly entries: readonly Entry[];
}
