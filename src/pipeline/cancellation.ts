import type { CancellationView } from "../contract/registration.js";

type Listener = (reason: unknown) => void;

interface Link {
  readonly listener: Listener;
  older: Link | null;
  newer: Link | null;
  gone: boolean;
}

/**
 * A tree of cancellations that allocates nothing until somebody looks. A child links itself to its parent on the first
 * observation only, and must be `dispose`d when its work ends so that a long-lived parent does not hold on to it.
 * Listeners must not throw.
 */
export class Cancellation implements CancellationView {
  readonly #parent: CancellationView | undefined;
  #unlink: (() => void) | undefined;
  /** Listeners, linked: adding and removing one cost a few assignments. */
  #oldest: Link | null = null;
  #newest: Link | null = null;
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
    this.#controller?.abort(reason);
    for (let link = this.#oldest; link !== null; link = this.#oldest) {
      this.#remove(link);
      link.listener(reason);
    }
  }

  onAbort(listener: Listener): () => void {
    this.#link();
    if (this.aborted) {
      listener(this.reason);
      return () => undefined;
    }
    const link: Link = { listener, older: this.#newest, newer: null, gone: false };
    if (this.#newest === null) this.#oldest = link;
    else this.#newest.newer = link;
    this.#newest = link;
    return () => this.#remove(link);
  }

  /** Lets go of the parent, for good. What has been aborted stays aborted. */
  dispose(): void {
    this.#disposed = true;
    this.#unlink?.();
    this.#unlink = undefined;
  }

  #remove(link: Link): void {
    if (link.gone) return;
    link.gone = true;
    if (link.newer === null) this.#newest = link.older;
    else link.newer.older = link.older;
    if (link.older === null) this.#oldest = link.newer;
    else link.older.newer = link.newer;
    // Else old garbage keeps its younger neighbours alive, as in the buckets of the timer wheel.
    link.older = link.newer = null;
  }

  #link(): void {
    if (this.#disposed || this.#unlink !== undefined || this.#parent === undefined) return;
    const unlink = this.#parent.onAbort((reason) => this.abort(reason));
    // A parent that is aborted already has called back, and left nothing to unlink.
    if (!this.#aborted) this.#unlink = unlink;
  }
}
