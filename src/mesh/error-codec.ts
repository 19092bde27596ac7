import { MeshError, toError } from "../errors.js";
import { publicMessage } from "../public-message.js";

const LONGEST_MESSAGE = 64 * 1024;
const LONGEST_STACK = 16 * 1024;
const LONGEST_NAME = 256;
const LONGEST_DATA = 64 * 1024;

export interface ErrorOrigin {
  /** Node on which the error arose, unless it says otherwise itself. */
  readonly nodeId: string;
  /** Whether stacks, and what Postgres quotes of statements and values, may leave the process. */
  readonly stacks: boolean;
}

/** What the answering node adds: no handler was reached, and none will be as the node drains. */
export interface Undelivered {
  readonly undelivered: true;
  readonly draining?: true;
}

export interface EncodedError {
  readonly status: number;
  readonly body: string;
}

/**
 * Any thrown value as an answer: `{"ok":false,"error":message,"name","code","data","retryable","status","nodeId"}`, each
 * left out where the error has none. `type` is the class where it differs from `name`. Never throws: `data` that JSON
 * cannot hold, or of more than 64 KiB, is left out and `dataDropped` says why.
 */
export function encodeError(thrown: unknown, origin: ErrorOrigin, extra?: Undelivered): EncodedError {
  const error = isErrorLike(thrown) ? thrown : toError(thrown);
  const status = statusOf(error);
  const name = shortString(read(error, "name")) ?? "Error";
  const type = shortString(read(read(error, "constructor"), "name"));
  const declared = read(error, "status");
  const head = {
    ok: false,
    error: cut(publicMessage(error, !origin.stacks), LONGEST_MESSAGE),
    name,
    type: type === name || type === undefined ? undefined : type,
    code: codeOf(read(error, "code")),
    retryable: booleanOf(read(error, "retryable")),
    status: typeof declared === "number" && declared !== status ? declared : undefined,
    nodeId: shortString(read(error, "nodeId")) ?? origin.nodeId,
    stack: origin.stacks ? stackOf(error) : undefined,
    ...extra,
  };
  return { status, body: withData(JSON.stringify(head), read(error, "data")) };
}

/** The HTTP status of an error: a mesh error's own; of the rest nothing is known but that the handler threw. */
function statusOf(error: object): number {
  if (!isMeshError(error)) return 500;
  const status = read(error, "status");
  return typeof status === "number" && Number.isInteger(status) && status >= 400 && status <= 599 ? status : 500;
}

/** `data` is serialised on its own, so that its failure costs nothing but itself. */
function withData(head: string, data: unknown): string {
  if (data === undefined) return head;
  const json = serialize(data);
  const field = typeof json === "string" ? `"data":${json}` : `"dataDropped":${JSON.stringify(json.dropped)}`;
  return `${head.slice(0, -1)},${field}}`;
}

function serialize(data: unknown): string | { readonly dropped: string } {
  try {
    const json = JSON.stringify(data) as string | undefined;
    if (json === undefined) return { dropped: `${typeof data} has no JSON form` };
    return json.length > LONGEST_DATA ? { dropped: `longer than ${LONGEST_DATA} characters` } : json;
  } catch (error) {
    return { dropped: `not serializable: ${cut(asText(read(error, "message")), LONGEST_NAME)}` };
  }
}

/** Errors of users may have throwing getters, or be proxies. */
function read(from: unknown, key: string): unknown {
  try {
    return (from as Record<string, unknown> | null | undefined)?.[key];
  } catch {
    return undefined;
  }
}

function isMeshError(error: object): boolean {
  try {
    return error instanceof MeshError;
  } catch {
    return false;
  }
}

/** Errors from other realms, and objects thrown in their place. */
function isErrorLike(thrown: unknown): thrown is object {
  return typeof thrown === "object" && thrown !== null && typeof read(thrown, "message") === "string";
}

const asText = (value: unknown): string => (typeof value === "string" ? value : "");
const cut = (text: string, length: number): string => (text.length > length ? `${text.slice(0, length)}…` : text);
const booleanOf = (value: unknown): boolean | undefined => (typeof value === "boolean" ? value : undefined);

function shortString(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? cut(value, LONGEST_NAME) : undefined;
}

function codeOf(value: unknown): string | number | undefined {
  return typeof value === "number" ? value : shortString(value);
}

function stackOf(error: object): string | undefined {
  const stack = read(error, "stack");
  return typeof stack === "string" ? cut(stack, LONGEST_STACK) : undefined;
}
