import { MeshConfigurationError } from "../errors.js";
import { readTls } from "../tls.js";
import { TimerWheel } from "../pipeline/timer-wheel.js";
import { YoungRuns } from "../pipeline/young-runs.js";
import { Cancellation } from "../pipeline/cancellation.js";
import { createCaller } from "./call.js";
import { tlsPartName } from "./options.js";
import { createErrorReviver } from "./error-revival.js";
import { createRpcClient } from "./rpc-client.js";
import { createRpcServer } from "./rpc-server.js";
import type { MeshCaller } from "./call.js";
import type { NodeDirectory, LocalActions } from "./directory.js";
import type { ResolvedMeshOptions } from "./options.js";
import type { RpcServer } from "./rpc-server.js";
import type { HostEnv } from "../contract/registration.js";

export interface RpcEndsOptions {
  readonly env: HostEnv;
  readonly options: ResolvedMeshOptions;
  readonly local: LocalActions;
  readonly directory: NodeDirectory;
  readonly cpuLoad: () => number;
  /** Ms since the epoch, on the database's clock. */
  readonly databaseNow: () => number;
  /** Where peers reach this node; null before that is known. */
  readonly advertisedUrl: () => string | null;
  /** Whether requests that come in are refused, as the node drains. */
  readonly refuses: () => boolean;
}

/** Both ends of RPC: calls that leave this node, and requests that come in. */
export interface RpcEnds {
  readonly caller: MeshCaller;
  readonly server: RpcServer;
  /** The peer is gone. */
  drop(nodeId: string): void;
  close(): Promise<void>;
}

/** Throws `MeshConfigurationError` naming the secret that is missing, or the part of `tls` that is wrong. */
export function openRpc({ env, options, local, directory, cpuLoad, databaseNow, advertisedUrl, refuses }: RpcEndsOptions): RpcEnds {
  const { nodeId, dispatcher } = env;
  const { defaultTimeoutMs, maxBodyBytes, maxInFlight, rpcAuth } = options;
  const tokens = options.tokenSecrets.map((name) => readToken(env, name));
  const wheel = new TimerWheel();
  const young = new YoungRuns();
  const closing = new Cancellation();
  const transport = createRpcClient({
    nodeId,
    tokens,
    suspect: (peer, drains) => directory.suspect(peer, drains),
    revive: createErrorReviver(options.errors),
    rpcAuth,
    databaseNow,
    maxBodyBytes,
    tls: readTls(options.tls, tlsPartName),
    allowed: options.allowedPeers,
  });
  const caller = createCaller({
    nodeId, dispatcher, local, directory, transport, wheel, young, cpuLoad, closing,
    middleware: options.middleware,
    defaults: { strategy: options.defaultStrategy, timeoutMs: defaultTimeoutMs, retries: options.defaultRetries },
  });
  const server = createRpcServer({
    nodeId, tokens, local, dispatcher, wheel, young, rpcAuth, databaseNow, advertisedUrl, defaultTimeoutMs, maxBodyBytes, maxInFlight, refuses,
    rpcPath: options.rpcPath,
  });
  const close = async (): Promise<void> => {
    server.close();
    closing.abort("the mesh is stopping");
    await transport.close();
    wheel.close();
  };
  return { caller, server, drop: (peer) => transport.drop(peer), close };
}

const IN_A_HEADER = /^[!-~](?:[ -~]*[!-~])?$/;

function readToken(env: HostEnv, secret: string): string {
  const token = env.secret(secret);
  if (token !== null && IN_A_HEADER.test(token)) return token;
  if (token !== null && token !== "") {
    throw new MeshConfigurationError(`mesh option meshToken names the secret "${secret}", which no header can hold as it is: use visible ASCII characters, and no white space at its ends`);
  }
  throw new MeshConfigurationError(`mesh option meshToken names the secret "${secret}", which is missing or empty: set it in secrets.values, the environment, secrets.envFile or secrets.dir`);
}
