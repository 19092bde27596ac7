/** Deepest nesting of objects and arrays that validation looks at. */
export const MAX_INPUT_DEPTH = 64;

/**
 * True where `value` nests deeper than `limit` objects and arrays, or is circular. Recursion ends at the limit, so the
 * stack is safe whatever the input.
 */
export function nestsDeeperThan(value: unknown, limit: number): boolean {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return false;
  if (limit === 0) return true;
  if (Array.isArray(value)) return value.some((item) => nestsDeeperThan(item, limit - 1));
  for (const key in value) if (nestsDeeperThan((value as Record<string, unknown>)[key], limit - 1)) return true;
  return false;
}
