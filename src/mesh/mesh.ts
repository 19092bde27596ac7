import type { Plugin } from "../contract/registration.js";
import type { CallMiddleware, ServiceSource, Strategy } from "../contract/mesh-client.js";
import type { Meta } from "../contract/context.js";
import type { Class } from "../contract/descriptor.js";

export interface MeshOptions {
  readonly services: readonly ServiceSource[];
  readonly transport?: "http" | "local-only";
  readonly advertisedUrl?: string;
  readonly meshToken?: string | readonly string[];
  readonly rpcPath?: string;
  readonly heartbeatMs?: number;
  readonly offlineAfterMs?: number;
  readonly gcAfterMs?: number;
  readonly defaultStrategy?: Strategy;
  readonly defaultTimeoutMs?: number;
  readonly defaultRetries?: number;
  readonly middleware?: readonly CallMiddleware[];
  readonly meta?: Meta | (() => Meta);
  readonly resolve?: <T extends object>(type: new () => T) => T;
  readonly errors?: readonly Class<Error>[];
  readonly maxBodyBytes?: number;
}

export function chimpbaseMesh(_options: MeshOptions): Plugin {
  throw new Error("stub");
}
