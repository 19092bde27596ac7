import { MeshError } from "../errors.js";
import { LingerLimit } from "../pipeline/linger-limit.js";
import { publicMessage } from "../public-message.js";
import type { ServerResponse } from "node:http";
import type { Logger } from "../logger.js";

export function answerJson(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/**
 * Answers for a route that threw: mesh errors with their status, message and data; anything else with 500 and nothing
 * of what it says, which goes to the log. Where the head is sent already, the connection is cut.
 */
export function answerError(error: unknown, response: ServerResponse, route: string, log: Logger, refusals: Refusals): void {
  const known = error instanceof MeshError ? error : null;
  if (known === null || known.status >= 500) log.error("a request failed", { request: route, err: error });
  if (response.headersSent || response.destroyed) return void response.destroy();
  for (const name of response.getHeaderNames()) response.removeHeader(name);
  if (known === null) return answerJson(response, 500, { ok: false, error: "internal error" });
  const status = isErrorStatus(known.status) ? known.status : 500;
  // What is left of the body is not worth reading.
  if (status === 413) refusals.answer(response, status, toBody(known));
  else answerJson(response, status, toBody(known));
}

/** Answers to clients that are still sending, after which the connection closes. */
export class Refusals {
  readonly #lingering = new LingerLimit();

  answer(response: ServerResponse, status: number, body: object): void {
    const text = JSON.stringify(body);
    response.req.pause();
    response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text), connection: "close" });
    response.write(text);
    this.#lingering.end(response, timer);
  }
}

function timer(ms: number, run: () => void): () => void {
  const timeout = setTimeout(run, ms);
  return () => clearTimeout(timeout);
}

function isErrorStatus(status: number): boolean {
  return Number.isInteger(status) && status >= 400 && status <= 599;
}

function toBody(error: MeshError): object {
  const { code, data } = error;
  const body = { ok: false, error: publicMessage(error), code };
  return data === undefined || !isSerializable(data) ? body : { ...body, data };
}

function isSerializable(data: unknown): boolean {
  try {
    return JSON.stringify(data) !== undefined;
  } catch {
    return false;
  }
}
