import type { CancellationView } from "../contract/registration.js";

type Listener = (reason: unknown) => void;

/**
 * A tree of cancellations that allocates nothing until somebody looks. A child links itself to its parent on the first
 * observation only, and must be `dispose`d when its work ends so that a long-lived parent does not hold on to it.
 * Listeners must not throw.
 */
export class Cancellation implements CancellationView {
  readonly #parent: CancellationView | undefined;
  #unlink: (() => void) | undefined;
  #listeners: Set<Listener> | undefined;
  #controller: AbortController | undefined;
  #aborted = false;
  #disposed = false;
  #reason: unknown;

  constructor(parent?: CancellationView) {
    this.#parent = parent;
  }

  get aborted(): boolean {
    return this.#aborted || this.#parent?.aborted === true;
  }

  get reason(): unknown {
    return this.#aborted ? this.#reason : this.#parent?.reason;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      this.#link();
      if (this.aborted) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  abort(reason: unknown): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason;
    this.dispose();
    const listeners = this.#listeners;
    this.#listeners = undefined;
    this.#controller?.abort(reason);
    if (listeners !== undefined) for (const listener of listeners) listener(reason);
  }

  onAbort(listener: Listener): () => void {
    this.#link();
    if (this.aborted) {
      listener(this.reason);
      return () => undefined;
    }
    // Wrapped, so that one function added twice is two listeners, each with a removal of its own.
    const entry: Listener = (reason) => listener(reason);
    const listeners = (this.#listeners ??= new Set());
    listeners.add(entry);
    return () => void listeners.delete(entry);
  }

  /** Lets go of the parent, for good. What has been aborted stays aborted. */
  dispose(): void {
    this.#disposed = true;
    this.#unlink?.();
    this.#unlink = undefined;
  }

  #link(): void {
    if (this.#disposed || this.#unlink !== undefined || this.#parent === undefined) return;
    const unlink = this.#parent.onAbort((reason) => this.abort(reason));
    // A parent that is aborted already has called back, and left nothing to unlink.
    if (!this.#aborted) this.#unlink = unlink;
  }
}
