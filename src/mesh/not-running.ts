import { MeshError } from "../errors.js";

/** Not retryable: the mesh of a host runs once. */
export function notRunning(ended: boolean, cause?: unknown): MeshError {
  const message = ended ? "the mesh has stopped" : "the mesh is not running yet: await host.start() first";
  return new MeshError(message, { code: "MESH_NOT_RUNNING", status: 503, cause });
}
