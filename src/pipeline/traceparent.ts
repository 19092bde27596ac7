/** Key of the trace in `ctx.meta`, in which it travels along the whole call chain, and name of its HTTP header. */
export const TRACEPARENT = "traceparent";

const W3C_TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The trace that `value` names, or null where it is none (W3C Trace Context, version-format 00). */
export function asTraceparent(value: unknown): string | null {
  return typeof value === "string" && W3C_TRACEPARENT.test(value) ? value : null;
}
