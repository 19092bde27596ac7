import type { ServerOptions } from "@chimpbase/mesh";

export interface LoadNodeConfig {
  readonly database: string;
  readonly server: ServerOptions;
}

/** Bytes. */
export interface Held {
  /** The most that the process has had resident since it began. */
  readonly rssPeak: number;
  readonly heap: number;
}

export interface LoadNodeCommands {
  start(): Promise<string>;
  stop(): Promise<void>;
  held(): Promise<Held>;
}
