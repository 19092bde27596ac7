import type { ServerOptions } from "@chimpbase/mesh";

export interface LoadNodeConfig {
  readonly database: string;
  readonly server: ServerOptions;
}

/** Bytes. */
export interface Held {
  readonly rss: number;
  readonly heap: number;
}

export interface LoadNodeCommands {
  start(): Promise<string>;
  stop(): Promise<void>;
  held(): Promise<Held>;
}
