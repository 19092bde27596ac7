import { ContextMesh, HostMeshClient } from "./mesh-client.js";
import { MeshNode } from "./node.js";
import { resolveMeshOptions } from "./options.js";
import { NodeServices } from "./services.js";
import type { MeshOptions } from "./options.js";
import type { Plugin, Registration } from "../contract/registration.js";

export type { MeshOptions } from "./options.js";

/**
 * One node of a mesh as a plugin: `ctx.mesh`, `host.mesh`, the services, and the node's place in the registry. Throws
 * `MeshConfigurationError` for a wrong option and `ServiceDefinitionError` for a wrong service.
 */
export function chimpbaseMesh(given: MeshOptions): Plugin {
  const options = resolveMeshOptions(given);
  const services = new NodeServices(options.resolve === undefined ? {} : { resolve: options.resolve });
  services.add(services.prepare(options.services));
  const node = new MeshNode(options, services);
  return { kind: "plugin", name: "chimpbase-mesh", dependsOn: [], registrations: registrationsOf(node) };
}

function registrationsOf(node: MeshNode): readonly Registration[] {
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
