import type { CancellationView } from "../contract/registration.js";

type Listener = (reason: unknown) => void;

/**
 * A tree of cancellations that allocates nothing until somebody looks. A child links itself to its parent on the first
 * observation only, and must be `dispose`d when its work ends so that a long-lived parent does not hold on to it.
 */
export class Cancellation implements CancellationView {
  readonly #parent: CancellationView | undefined;
  #unlink: (() => void) | undefined;
  #listeners: Set<Listener> | undefined;
  #controller: AbortController | undefined;
  #aborted = false;
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
      if (this.#aborted) this.#controller.abort(this.#reason);
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
    if (this.#aborted) {
      listener(this.#reason);
      return () => undefined;
    }
    const listeners = (this.#listeners ??= new Set());
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Lets go of the parent. What has been aborted stays aborted. */
  dispose(): void {
    this.#unlink?.();
    this.#unlink = undefined;
  }

  #link(): void {
    if (this.#aborted || this.#unlink !== undefined || this.#parent === undefined) return;
    const unlink = this.#parent.onAbort((reason) => this.abort(reason));
    // A parent that is aborted already has called back, and left nothing to unlink.
    if (!this.#aborted) this.#unlink = unlink;
  }
}
