import type { ActivityCount } from "../contract/registration.js";

/** How many runs of something are under way. */
export class Activity implements ActivityCount {
  #count = 0;
  #whenIdle: (() => void) | null = null;

  begin(): void {
    this.#count++;
  }

  end(): void {
    this.#count--;
    if (this.#count === 0) this.#whenIdle?.();
  }

  /** Resolves when there is none. To be waited for once. */
  async idle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
  }
}
