import { MeshError } from "../errors.js";
import type { Meta } from "../contract/context.js";
import { parseObject } from "./json-object.js";
import { mergeMeta } from "./meta.js";
import type { RpcRequest } from "./rpc-transport.js";

export const TOKEN_HEADER = "x-chimpbase-mesh-token";
export const CALLER_HEADER = "x-chimpbase-mesh-caller";
export const TIMEOUT_HEADER = "x-chimpbase-mesh-timeout";

const LONGEST_ID = 128;
const LONGEST_CHAIN = 10;
/** Beyond it, a duration is a clock time: nodes of an older kind send one in `deadlineMs`. */
const LONGEST_DURATION_MS = 1e12;
const NO_META: Meta = Object.freeze({});

/** A request as it was read from a body. */
export interface ReceivedRequest extends Omit<RpcRequest, "requestId"> {
  readonly callerNodeId: string | null;
  readonly requestId: string | null;
  /** What remains to the caller, as a duration; null where the body has none that is one. */
  readonly deadlineMs: number | null;
}

/** The body of a request. Throws `ARGS_NOT_SERIALIZABLE` where JSON cannot hold `args` or `meta`. */
export function encodeRequest(request: RpcRequest, callerNodeId: string, remainingMs: number): string {
  const { actionName, args, meta, requestId, level, chain } = request;
  try {
    return JSON.stringify({
      actionName,
      args,
      callerNodeId,
      deadlineMs: wireMs(remainingMs),
      meta: isEmpty(meta) ? undefined : meta,
      requestId,
      level,
      chain: chain.length === 0 ? undefined : chain,
    });
  } catch (cause) {
    const message = `arguments or meta of ${actionName} cannot be sent as JSON: ${reasonOf(cause)}`;
    throw new MeshError(message, { code: "ARGS_NOT_SERIALIZABLE", status: 500, retryable: false, cause });
  }
}

/** Whole ms, and never 0 while something remains. Longer ones are sent as the longest that is read as a duration. */
export const wireMs = (remainingMs: number): number => Math.min(LONGEST_DURATION_MS - 1, Math.ceil(remainingMs));

/** What a body says, or null where it is no request: not JSON, no object, or no `actionName`. */
export function decodeRequest(text: string): ReceivedRequest | null {
  const body = parseObject(text);
  if (body === null || typeof body.actionName !== "string" || body.actionName === "") return null;
  return {
    actionName: body.actionName,
    args: body.args,
    meta: body.meta === undefined ? NO_META : mergeMeta(NO_META, body.meta),
    requestId: idOrNull(body.requestId),
    level: isLevel(body.level) ? body.level : 1,
    chain: decodeChain(body.chain),
    callerNodeId: idOrNull(body.callerNodeId),
    deadlineMs: typeof body.deadlineMs === "number" ? asDuration(body.deadlineMs) : null,
  };
}

/** The duration in a timeout header, null where it holds none. Below 0 counts as spent. */
export function decodeTimeout(header: string | readonly string[] | undefined): number | null {
  if (typeof header !== "string" || !/^-?\d{1,15}(\.\d{1,6})?$/.test(header)) return null;
  return asDuration(Number(header));
}

/** The body of an answer with a result. Throws `RESULT_NOT_SERIALIZABLE` where JSON cannot hold it. */
export function encodeResult(actionName: string, result: unknown): string {
  try {
    return `{"ok":true,"result":${JSON.stringify(result) ?? "null"}}`;
  } catch (cause) {
    const message = `the result of ${actionName} cannot be sent as JSON: ${reasonOf(cause)}`;
    throw new MeshError(message, { code: "RESULT_NOT_SERIALIZABLE", status: 500, retryable: false, cause });
  }
}

/** An id from the wire, or null where it is none that a header or a log should hold. */
export function idOrNull(value: unknown): string | null {
  return typeof value === "string" && value.length <= LONGEST_ID && /^[\x21-\x7e]+$/.test(value) ? value : null;
}

function asDuration(ms: number): number | null {
  return Number.isFinite(ms) && ms < LONGEST_DURATION_MS ? Math.max(0, ms) : null;
}

const isLevel = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 1;

function decodeChain(value: unknown): readonly string[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, LONGEST_CHAIN).filter((name) => idOrNull(name) !== null) as string[];
}

function isEmpty(meta: Meta): boolean {
  for (const _ in meta) return false;
  return true;
}

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message.split("\n")[0]! : String(cause));

/** Whether a text is so many bytes of UTF-8 at most, where its length tells without counting them. */
export const isAtMost = (text: string, bytes: number): boolean => text.length * 3 <= bytes || Buffer.byteLength(text) <= bytes;
