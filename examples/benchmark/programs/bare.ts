import type { Running } from "../roles.js";
import { usage } from "./usage.js";

/** What `idle` is measured beside: a process without the mesh, which only answers the benchmark. */
export async function bare(): Promise<Running> {
  return { special: { usage }, stop: () => Promise.resolve() };
}
