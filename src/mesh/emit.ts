import { MeshConfigurationError, MeshNoConsumerError } from "../errors.js";
import { refuseUnknownKeys } from "./option-names.js";
import type { EmitOptions } from "../contract/mesh-client.js";
import type { Outbox, Reach } from "../contract/messaging.js";
import type { ScopedContext } from "../contract/registration.js";

const EVENT_NAME = /^_{0,2}[A-Za-z][A-Za-z0-9_$-]*(\.[A-Za-z0-9_$-]+)*$/;
const LONGEST_NAME = 128;
const RESERVED = "__chimpbase.";

/** Emits from `ctx`, in its transaction where it has one. Resolves once the event is committed, or written there. */
export async function emitEvent(outbox: Outbox, ctx: ScopedContext, event: string, payload: unknown, options: EmitOptions = {}): Promise<void> {
  checkEventName(event);
  checkOptions(options);
  const { requestId, meta, session } = ctx.scope;
  const tx = session === undefined ? null : await session.joinTransaction();
  const groups = await outbox.emit({ name: event, payload, requestId, meta }, reachOf(options), tx);
  if (options.balanced === true && groups === 0) throw new MeshNoConsumerError(event);
}

function reachOf({ balanced }: EmitOptions): Reach {
  if (balanced === undefined) return "all";
  return balanced ? "balanced" : "broadcast";
}

function checkOptions(options: EmitOptions): void {
  const { balanced } = options as { readonly balanced?: unknown };
  refuseUnknownKeys("emit option", options, ["balanced"]);
  if (balanced !== undefined && typeof balanced !== "boolean") throw new MeshConfigurationError(`emit option balanced must be true or false, got ${String(balanced)}`);
}

function checkEventName(event: string): void {
  const name: unknown = event;
  if (typeof name !== "string" || name.length > LONGEST_NAME || !EVENT_NAME.test(name)) {
    throw new MeshConfigurationError(`event name ${JSON.stringify(name)} is not legal: use segments of letters, digits, "_", "$", "-" between dots, at most ${LONGEST_NAME} characters`);
  }
  if (name.startsWith(RESERVED)) throw new MeshConfigurationError(`event name "${name}" is reserved: names under "${RESERVED}" are the mesh's own`);
}
