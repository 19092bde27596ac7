import { ContextMesh, HostMeshClient } from "./mesh-client.js";
import { MeshNode } from "./node.js";
import { EXECUTE_ACTION } from "./rpc-desk.js";
import { resolveMeshOptions } from "./options.js";
import { NodeServices } from "./services.js";
import { WIRE_PROTOCOL } from "./wire-frames.js";
import type { MeshOptions } from "./options.js";
import type { ExecuteRequest } from "./rpc-desk.js";
import type { Plugin, Registration, ScopedContext } from "../contract/registration.js";

export type { MeshOptions, PeerTlsOptions } from "./options.js";

/**
 * One node of a mesh as a plugin: `ctx.mesh`, `host.mesh`, the services, and the node's place in the registry. Throws
 * `MeshConfigurationError` for a wrong option and `ServiceDefinitionError` for a wrong service.
 */
export function chimpbaseMesh(given: MeshOptions): Plugin {
  const options = resolveMeshOptions(given);
  const services = new NodeServices(options.resolve === undefined ? {} : { resolve: options.resolve });
  services.add(services.prepare(options.services));
  const node = new MeshNode(options, services);
  const registrations = [...nodeRegistrations(node), ...(options.transport === "http" ? rpcRegistrations(node) : [])];
  return { kind: "plugin", name: "chimpbase-mesh", dependsOn: [], registrations };
}

function nodeRegistrations(node: MeshNode): readonly Registration[] {
  return [
    { kind: "context-extension", key: "mesh", factory: (ctx) => new ContextMesh(node, ctx) },
    { kind: "host-extension", key: "mesh", value: new HostMeshClient(node) },
    { kind: "cron", name: "__chimpbase.mesh.gc", schedule: "* * * * *", handler: () => node.sweep(), options: {} },
    {
      kind: "lifecycle",
      name: "chimpbase-mesh",
      ready: (env) => node.ready(env),
      listening: (env) => node.listening(env),
      drain: (env) => node.drain(env),
      close: (env) => node.close(env),
    },
  ];
}

/** Node's own request and response, since the token is checked before the body is read. */
function rpcRegistrations(node: MeshNode): readonly Registration[] {
  return [
    { kind: "action", name: EXECUTE_ACTION, handler: (ctx, request: ExecuteRequest) => node.running().rpc.server.execute(ctx as ScopedContext, request) },
    { kind: "raw-route", name: "chimpbase-mesh-rpc", handler: (request, response, env) => node.server?.handle(request, response, env) ?? false },
    { kind: "upgrade", name: "chimpbase-mesh-wire", protocol: WIRE_PROTOCOL, handler: (request, socket, head, env) => node.server?.upgrade(request, socket, head, env) ?? false },
  ];
}
