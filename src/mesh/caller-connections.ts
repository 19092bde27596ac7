import type { Duplex } from "node:stream";

/**
 * Connections on which callers have been served, and which they keep for more. A node that stops leaves it to its callers
 * to close them: one closed from this side may take a request with it that is on its way already.
 */
export class CallerConnections {
  readonly #sockets = new Set<Duplex>();
  #onGone: () => void = () => undefined;

  note(socket: Duplex): void {
    if (this.#sockets.has(socket) || socket.destroyed) return;
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#onGone();
    });
  }

  /** Resolves once all are closed. */
  gone(): Promise<void> {
    if (this.#sockets.size === 0) return Promise.resolve();
    return new Promise((resolve) => (this.#onGone = resolve));
  }
}
