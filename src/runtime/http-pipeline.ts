import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Requests that clients send ahead of the answers to those before: what Node leaves undone about them. */
export class Pipelines {
  readonly #latest = new WeakMap<Socket, ServerResponse>();
  readonly #waiting = new Map<Socket, Set<ServerResponse>>();

  add({ socket }: IncomingMessage, response: ServerResponse): void {
    this.#latest.set(socket, response);
    if (response.socket === null) this.#closeWith(socket, response);
  }

  /** Calls `next` once all requests before have been answered, and not at all where the connection ends before that. */
  afterAnswers(socket: Socket, next: () => void): void {
    const latest = this.#latest.get(socket);
    if (latest === undefined || isOver(latest)) return next();
    latest.once("close", () => {
      if (!socket.destroyed) next();
    });
  }

  /** Of a closed connection, Node tells only the response whose turn it is: the others are told here. */
  #closeWith(socket: Socket, response: ServerResponse): void {
    const waiting = this.#waiting.get(socket) ?? this.#watch(socket);
    waiting.add(response);
    response.once("close", () => waiting.delete(response));
  }

  #watch(socket: Socket): Set<ServerResponse> {
    const waiting = new Set<ServerResponse>();
    this.#waiting.set(socket, waiting);
    socket.once("close", () => {
      this.#waiting.delete(socket);
      for (const response of waiting) if (response.socket === null) response.destroy().emit("close");
    });
    return waiting;
  }
}

/** Written out, and let go of by its socket. */
function isOver(response: ServerResponse): boolean {
  return response.writableFinished && response.socket === null;
}
