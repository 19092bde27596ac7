import type { Entry } from "./history.js";
import type { Report } from "./protocol.js";

const FLUSH_MS = 20;

/** Hands what happens in this process to the parent, some at a time. */
export class Journal {
  #entries: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;

  add(entry: Entry): void {
    this.#entries.push(entry);
    this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const report: Report = { entries: this.#entries };
    this.#entries = [];
    if (report.entries.length > 0) process.send?.(report);
  }
}
