import type { Running } from "../roles.js";
import { usage } from "./usage.js";

/** What `idle` is measured beside: a process without the mesh, which only answers the benchmark. */
export async function bare(): Promise<Running> {
  return { special: { usage }, stop: () => Promise.resolve() };
}

/** The floor of `local`: an asynchronous function that is called directly. */
export async function local(): Promise<Running> {
  const add = async ({ a, b }: { readonly a: number; readonly b: number }): Promise<{ sum: number }> => ({ sum: a + b });
  return { call: (_kind, args) => add(args as { readonly a: number; readonly b: number }), stop: () => Promise.resolve() };
}
