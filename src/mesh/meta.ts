import type { Meta } from "../contract/context.js";
import { isObject } from "./json-object.js";

/** `more` over `base`, frozen. `__proto__` never gets in: a later copy by assignment would follow it. */
export function mergeMeta(base: Meta, more: unknown): Meta {
  if (!isObject(more)) return base;
  const { ["__proto__"]: _, ...safe } = { ...base, ...more };
  return Object.freeze(safe);
}
