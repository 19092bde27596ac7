import { chimpbaseMesh } from "./mesh.js";
import type { ServiceSource } from "../contract/mesh-client.js";
import type { Registration } from "../contract/registration.js";
import type { MeshOptions } from "./mesh.js";

/** `host.register(chimpbaseMesh({ services, ...options }))`, for hosts that need nothing else said. Returns the host. */
export function registerServices<H extends { register(...registrations: readonly Registration[]): unknown }>(
  host: H,
  services: readonly ServiceSource[],
  options: Omit<MeshOptions, "services"> = {},
): H {
  host.register(chimpbaseMesh({ ...options, services }));
  return host;
}
