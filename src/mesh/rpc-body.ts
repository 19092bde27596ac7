import type { IncomingMessage } from "node:http";
import type { TimerWheel } from "../pipeline/timer-wheel.js";

/** Why a body could not be had. `gone`: the client closed the connection, and there is nobody to answer. */
export type BodyFault = "too-large" | "too-slow" | "gone";

export interface BodyLimits {
  readonly maxBytes: number;
  readonly timeoutMs: number;
  readonly wheel: TimerWheel;
}

export type BodyOutcome = { readonly bytes: Buffer } | { readonly fault: BodyFault };

/** The length that the request declares, NaN where it declares none (chunked, or no body at all). */
export function declaredLength(request: IncomingMessage): number {
  return Number(request.headers["content-length"] ?? NaN);
}

/** Reads a body up to its limits; past one of them it stops taking bytes in and leaves the connection to be closed. */
export function readBody(request: IncomingMessage, limits: BodyLimits): Promise<BodyOutcome> {
  if (request.destroyed && !request.complete) return Promise.resolve({ fault: "gone" });
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const timer = limits.wheel.add(limits.timeoutMs, () => finish({ fault: "too-slow" }));
    const onData = (chunk: Buffer): void => {
      bytes += chunk.byteLength;
      if (bytes > limits.maxBytes) finish({ fault: "too-large" });
      else chunks.push(chunk);
    };
    const onEnd = (): void => finish({ bytes: wholeOf(chunks) });
    const onGone = (): void => finish({ fault: "gone" });
    const finish = (outcome: BodyOutcome): void => {
      timer.cancel();
      request.off("data", onData).off("end", onEnd).off("close", onGone);
      if ("fault" in outcome) request.pause();
      resolve(outcome);
    };
    // An error is always followed by a close; without a listener it would end the process.
    request.on("data", onData).on("end", onEnd).on("close", onGone).on("error", ignore);
  });
}

function ignore(): void {}

function wholeOf(chunks: readonly Buffer[]): Buffer {
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}
