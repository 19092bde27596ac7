/** What every mesh error carries beyond `message`. */
export interface MeshErrorOptions {
  readonly code?: string;
  readonly status?: number;
  readonly retryable?: boolean;
  readonly data?: unknown;
  readonly nodeId?: string | undefined;
  readonly cause?: unknown;
}

interface MeshErrorDefaults {
  readonly code: string;
  readonly status: number;
  readonly retryable: boolean;
}

const brandOf = (className: string): symbol => Symbol.for(`@chimpbase/mesh/${className}`);

/**
 * Base of all errors of the mesh.
 *
 * `code` is stable and machine-readable, `status` the HTTP status it answers with, `retryable` whether another
 * attempt may succeed, `nodeId` the node on which it arose. `instanceof` works across two copies of the package:
 * classes are recognised by a brand under `Symbol.for`, not by identity.
 */
export class MeshError extends Error {
  static readonly brand: symbol = brandOf("MeshError");

  /** @internal */
  static readonly defaults: MeshErrorDefaults = { code: "MESH_ERROR", status: 500, retryable: false };

  static override [Symbol.hasInstance](value: unknown): boolean {
    if (!Object.hasOwn(this, "brand")) return Function.prototype[Symbol.hasInstance].call(this, value);
    return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[this.brand] === true;
  }

  readonly code: string;
  readonly status: number;
  readonly retryable: boolean;
  readonly data: unknown;
  nodeId: string | undefined;

  constructor(message: string, options: MeshErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const { code, status, retryable } = new.target.defaults;
    this.code = options.code ?? code;
    this.status = options.status ?? status;
    this.retryable = options.retryable ?? retryable;
    this.data = options.data;
    this.nodeId = options.nodeId;
  }
}

/** Gives a class its wire name, its brand and its defaults, all non-enumerable so that they never leak into logs. */
function define(type: { readonly prototype: MeshError }, name: string, defaults: MeshErrorDefaults): void {
  const brand = brandOf(name);
  Object.defineProperties(type, {
    brand: { value: brand },
    defaults: { value: defaults },
  });
  Object.defineProperties(type.prototype, {
    name: { value: name, writable: true, configurable: true },
    [brand]: { value: true },
  });
}

/** No live node serves the action. Retryable: one may appear. */
export class MeshNoAvailableNodeError extends MeshError {
  constructor(action: string, options?: MeshErrorOptions) {
    super(`no mesh node currently serves action: ${action}`, options);
  }
}

/** The budget of a call is spent. `ms` is the budget that the call was given. */
export class MeshTimeoutError extends MeshError {
  constructor(action: string, ms: number, options?: MeshErrorOptions) {
    super(`mesh call timed out after ${ms}ms: ${action}`, options);
  }
}

/** The transport failed, or a remote handler threw an error whose class is not known here. */
export class MeshCallError extends MeshError {}

/** The node that was asked does not serve the action. */
export class MeshActionNotFoundError extends MeshError {
  constructor(action: string, options?: MeshErrorOptions) {
    super(`mesh action not found: ${action}`, options);
  }
}

/** One rule that an input broke. `path` is dotted, array indexes included: `items.0.qty`. */
export interface ValidationIssue {
  readonly path: string;
  readonly message: string;
  readonly constraint: string;
}

/** Input that breaks the rules of `params`; `data` lists every broken rule. */
export class MeshValidationError extends MeshError {
  declare readonly data: readonly ValidationIssue[];

  constructor(message: string, issues: readonly ValidationIssue[], options?: MeshErrorOptions) {
    super(message, { ...options, data: issues });
  }
}

/** The shared token is missing or wrong. */
export class MeshUnauthorizedError extends MeshError {
  constructor(message = "unauthorized mesh rpc", options?: MeshErrorOptions) {
    super(message, options);
  }
}

/** The caller cancelled, or the node that ran the call reached its drain limit. */
export class MeshCancelledError extends MeshError {}

/** A request, result or event is larger than the limit that its message names. */
export class MeshPayloadTooLargeError extends MeshError {}

/** A bounded resource (in-flight calls, pool, queue) is full. Retryable, elsewhere or later. */
export class MeshOverloadedError extends MeshError {}

/** `{ balanced: true }` named an event for which no group has ever registered. */
export class MeshNoConsumerError extends MeshError {
  constructor(event: string, options?: MeshErrorOptions) {
    super(`no balanced group has ever subscribed to event: ${event}`, options);
  }
}

/** An option, registration or environment value is missing or wrong. */
export class MeshConfigurationError extends MeshError {}

/** A service class or definition cannot be compiled; the message names class and member. */
export class ServiceDefinitionError extends MeshError {}

define(MeshError, "MeshError", MeshError.defaults);
define(MeshNoAvailableNodeError, "MeshNoAvailableNodeError", { code: "NO_AVAILABLE_NODE", status: 503, retryable: true });
define(MeshTimeoutError, "MeshTimeoutError", { code: "TIMEOUT", status: 408, retryable: true });
define(MeshCallError, "MeshCallError", { code: "CALL_FAILED", status: 502, retryable: true });
define(MeshActionNotFoundError, "MeshActionNotFoundError", { code: "ACTION_NOT_FOUND", status: 404, retryable: false });
define(MeshValidationError, "MeshValidationError", { code: "VALIDATION_FAILED", status: 422, retryable: false });
define(MeshUnauthorizedError, "MeshUnauthorizedError", { code: "UNAUTHORIZED", status: 401, retryable: false });
define(MeshCancelledError, "MeshCancelledError", { code: "CANCELLED", status: 499, retryable: false });
define(MeshPayloadTooLargeError, "MeshPayloadTooLargeError", { code: "PAYLOAD_TOO_LARGE", status: 413, retryable: false });
define(MeshOverloadedError, "MeshOverloadedError", { code: "OVERLOADED", status: 503, retryable: true });
define(MeshNoConsumerError, "MeshNoConsumerError", { code: "NO_CONSUMER", status: 503, retryable: false });
define(MeshConfigurationError, "MeshConfigurationError", { code: "CONFIGURATION", status: 500, retryable: false });
define(ServiceDefinitionError, "ServiceDefinitionError", { code: "SERVICE_DEFINITION", status: 500, retryable: false });

/** Any thrown value as an `Error`, itself where it is one. */
export function toError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  return new MeshError(typeof thrown === "string" ? thrown : "a non-error value was thrown", { data: thrown });
}

/** False only where the error says so: retry repeats on everything else. */
export function isRetryable(error: unknown): boolean {
  return !(typeof error === "object" && error !== null && (error as { retryable?: unknown }).retryable === false);
}
