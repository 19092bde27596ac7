import type { Meta } from "../contract/context.js";

/** `more` over `base`, frozen. `__proto__` never gets in: a later copy by assignment would follow it. */
export function mergeMeta(base: Meta, more: unknown): Meta {
  if (typeof more !== "object" || more === null || Array.isArray(more)) return base;
  const { ["__proto__"]: _, ...safe } = { ...base, ...more } as Record<string, unknown>;
  return Object.freeze(safe);
}
