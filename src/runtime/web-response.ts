import { MeshError } from "../errors.js";
import type { ServerResponse } from "node:http";

/**
 * Writes a Web `Response` out, at the pace of the client. Rejects if the body fails; by then the head may be sent.
 * A client that goes away cancels the body, and is no error.
 */
export async function sendWebResponse(answer: Response, response: ServerResponse, headOnly: boolean): Promise<void> {
  const body = answer.body;
  if (body === null || headOnly) {
    writeHead(answer, response);
    response.end();
    await body?.cancel();
    return;
  }
  if (response.destroyed) return body.cancel();
  // Throws for a body that has been read already, while an error can still be answered.
  const reader = body.getReader();
  const gone = (): void => void reader.cancel().catch(() => undefined);
  response.once("close", gone);
  try {
    const first = await reader.read();
    writeHead(answer, response);
    for (let chunk = first; !chunk.done && !response.destroyed; chunk = await reader.read()) {
      if (!response.write(checkChunk(chunk.value))) await writable(response);
    }
    response.end();
  } finally {
    response.off("close", gone);
    if (response.destroyed) gone();
  }
}

function checkChunk(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk;
  throw new MeshError("the body of the response holds a chunk that is no Uint8Array");
}

function writeHead(answer: Response, response: ServerResponse): void {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of answer.headers) if (name !== "set-cookie") headers[name] = value;
  const cookies = answer.headers.getSetCookie();
  if (cookies.length > 0) headers["set-cookie"] = cookies;
  response.writeHead(answer.status, headers);
}

/** The client takes more, or is gone. */
function writable(response: ServerResponse): Promise<void> {
  if (response.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.on("drain", done);
    response.on("close", done);
  });
}
