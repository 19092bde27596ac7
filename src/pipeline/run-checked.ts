import type { ScopedContext, Target } from "../contract/registration.js";
import { isThenable } from "./thenable.js";

/** A handler, behind the check of its arguments where there is one. A promise only where one of the two gives one. */
export function runChecked(handler: Target["handler"], validate: Target["validate"], ctx: ScopedContext, args: unknown): unknown {
  if (validate === undefined) return handler(ctx, args);
  const checked = validate(args);
  return isThenable(checked) ? checked.then((value) => handler(ctx, value)) : handler(ctx, checked);
}
