import * as errors from "../errors.js";
import type { Class } from "../contract/descriptor.js";

const { MeshCallError, MeshError } = errors;

/** An answer that says no: what `encodeError` writes, or the little that a foreign node sends. */
export type ErrorAnswer = Readonly<Record<string, unknown>>;

export interface AnsweredCall {
  readonly action: string;
  readonly nodeId: string;
}

interface RemoteError {
  readonly message: string;
  readonly name: string | undefined;
  readonly type: string | undefined;
  readonly code: string | number | undefined;
  readonly data: unknown;
  readonly retryable: boolean | undefined;
  readonly status: number;
  /** What the error itself says, where that differs from the answer's status. */
  readonly declaredStatus: number | undefined;
  readonly nodeId: string;
  readonly stack: string | undefined;
}

/** Makes an error that reads as it did on the node where it arose. */
export type ErrorReviver = (answer: ErrorAnswer, httpStatus: number, call: AnsweredCall) => Error;

const MESH_CLASSES: ReadonlyMap<string, Class<Error>> = new Map(
  Object.entries(errors).filter(([name, value]) => /Error$/.test(name) && value.prototype instanceof Error) as [string, Class<Error>][],
);

const CLASS_OF_STATUS: Readonly<Record<number, Class<Error>>> = {
  401: errors.MeshUnauthorizedError,
  404: errors.MeshActionNotFoundError,
  408: errors.MeshTimeoutError,
  413: errors.MeshPayloadTooLargeError,
  422: errors.MeshValidationError,
  503: errors.MeshOverloadedError,
};

const NOT_RETRYABLE: ReadonlySet<number> = new Set([400, 401, 404, 405, 413, 422, 499]);

/** Errors of `classes` are revived as what they were, by class name; errors of the mesh always; all others as `MeshCallError`. */
export function createErrorReviver(classes: readonly Class<Error>[]): ErrorReviver {
  const own = new Map(classes.map((type) => [type.name, type]));
  return (answer, httpStatus, call) => {
    const remote = decode(answer, httpStatus, call);
    const { type: className = "", name = "" } = remote;
    const type = own.get(className) ?? own.get(name) ?? MESH_CLASSES.get(name) ?? MESH_CLASSES.get(className) ?? foreignClass(remote);
    return type === undefined || isMeshClass(type) ? reviveMeshError(remote, type ?? MeshCallError) : reviveUserError(remote, type);
  };
}

/** What says neither class nor code comes from a node that answers by status only. */
function foreignClass(remote: RemoteError): Class<Error> | undefined {
  return remote.name === undefined && remote.code === undefined ? CLASS_OF_STATUS[remote.status] : undefined;
}

const isMeshClass = (type: Class<Error>): boolean => type === MeshError || type.prototype instanceof MeshError;

function decode(answer: ErrorAnswer, httpStatus: number, call: AnsweredCall): RemoteError {
  const { error, name, type, code, data, retryable, status, nodeId, stack } = answer;
  return {
    message: typeof error === "string" ? error : `mesh peer answered ${httpStatus} to ${call.action} without a message`,
    name: stringOf(name),
    type: stringOf(type),
    code: typeof code === "number" ? code : stringOf(code),
    data,
    retryable: typeof retryable === "boolean" ? retryable : undefined,
    status: typeof status === "number" ? status : httpStatus,
    declaredStatus: typeof status === "number" ? status : undefined,
    nodeId: stringOf(nodeId) ?? call.nodeId,
    stack: stringOf(stack),
  };
}

/** Constructors of mesh errors word their messages themselves, so the class is put on afterwards. */
function reviveMeshError(remote: RemoteError, type: Class<Error>): Error {
  const error = new MeshCallError(remote.message, {
    status: remote.status,
    retryable: remote.retryable ?? !NOT_RETRYABLE.has(remote.status),
    data: remote.data,
    nodeId: remote.nodeId,
    code: (remote.code ?? codeOf(type)) as string,
  });
  if (type !== MeshCallError) Object.setPrototypeOf(error, type.prototype as object);
  return dress(error, remote);
}

const codeOf = (type: Class<Error>): string => (type as typeof MeshError).defaults.code;

/** A user's constructor may need anything and do anything: it is not run. */
function reviveUserError(remote: RemoteError, type: Class<Error>): Error {
  const error = new Error(remote.message);
  Object.setPrototypeOf(error, type.prototype as object);
  for (const key of ["code", "data", "retryable", "nodeId", "declaredStatus"] as const) {
    if (remote[key] !== undefined) put(error, key === "declaredStatus" ? "status" : key, remote[key], true);
  }
  return dress(error, remote);
}

function dress(error: Error, remote: RemoteError): Error {
  if (remote.name !== undefined && error.name !== remote.name) put(error, "name", remote.name, false);
  if (remote.stack !== undefined) put(error, "stack", remote.stack, false);
  return error;
}

function put(error: Error, key: string, value: unknown, enumerable: boolean): void {
  Object.defineProperty(error, key, { value, enumerable, writable: true, configurable: true });
}

const stringOf = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined);
