import type { IncomingMessage, ServerResponse } from "node:http";
import type { LingerLimit } from "../pipeline/linger-limit.js";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import { declaredLength } from "./rpc-body.js";
import { SIGNATURE_HEADER } from "./rpc-signature.js";

export interface RpcAnswer {
  readonly status: number;
  readonly body: string;
  readonly allow?: string;
  /** Value of the signature header. */
  readonly signature?: string;
  /** The connection ends with this answer. */
  readonly close?: true;
}

export const UNAUTHORIZED: RpcAnswer = { status: 401, body: '{"ok":false,"error":"unauthorized mesh rpc"}' };

/** Unread bodies up to this length are taken in and dropped, which keeps the connection; longer ones cost it. */
const CHEAPLY_DROPPED = 64 * 1024;

/** What refusals that close a connection need. */
export interface Lingering {
  readonly wheel: TimerWheel;
  readonly limit: LingerLimit;
}

export function sendAnswer(response: ServerResponse, answer: RpcAnswer): void {
  if (!isOpen(response)) return;
  response.writeHead(answer.status, headersOf(answer));
  response.end(answer.body);
}

/** Answers a request whose body has not been read to its end. */
export function refuseUnread(request: IncomingMessage, response: ServerResponse, answer: RpcAnswer, lingering: Lingering): void {
  if (!isOpen(response)) return;
  if (answer.close !== true && isCheap(request, response)) sendAnswer(response, answer);
  else refuseAndClose(response, answer, lingering);
}

/** Answers, and closes once the client has had the time to read that. */
export function refuseAndClose(response: ServerResponse, answer: RpcAnswer, { wheel, limit }: Lingering): void {
  if (!isOpen(response)) return;
  response.writeHead(answer.status, [...headersOf(answer), "connection", "close"]);
  response.write(answer.body);
  limit.end(response, (ms, run) => {
    const entry = wheel.add(ms, run);
    return () => entry.cancel();
  });
}

function headersOf({ body, allow, signature }: RpcAnswer): string[] {
  const headers = ["content-type", "application/json", "content-length", String(Buffer.byteLength(body))];
  if (allow !== undefined) headers.push("allow", allow);
  if (signature !== undefined) headers.push(SIGNATURE_HEADER, signature);
  return headers;
}

/** Nothing is left to read, or so little that the connection can be kept; one that is not kept would be reset over it. */
function isCheap(request: IncomingMessage, response: ServerResponse): boolean {
  if (request.complete) return true;
  if (request.headers["transfer-encoding"] !== undefined) return false;
  const length = declaredLength(request) || 0;
  return length === 0 || (response.shouldKeepAlive && length <= CHEAPLY_DROPPED);
}

/** A response without a socket is open too: that of a pipelined request whose turn has not come. */
const isOpen = (response: ServerResponse): boolean => !response.headersSent && !response.destroyed;
