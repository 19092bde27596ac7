import { MeshError } from "../errors.js";
import { within } from "../pipeline/time-limit.js";
import type { Logger } from "../logger.js";

/** Longest time that one step may take; the others run all the same. */
const STEP_LIMIT_MS = 10_000;

/** What must be undone, last done first. Every step runs, whatever becomes of the others. */
export class Teardown {
  readonly #log: Logger;
  readonly #steps: { readonly name: string; readonly undo: () => unknown }[] = [];
  readonly #errors: unknown[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  push(name: string, undo: () => unknown): void {
    this.#steps.push({ name, undo });
  }

  /** Runs `step` now, within the limit; what it throws is logged and kept for `finish`. */
  async attempt(name: string, step: () => unknown): Promise<void> {
    try {
      await withLimit(name, step);
    } catch (error) {
      this.#errors.push(error);
      this.#log.error(`stopping: ${name} failed`, { err: error });
    }
  }

  /** Undoes everything. Rejects with `MeshError`, code `STOP_FAILED`, after all of it where steps failed. */
  async finish(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) await this.attempt(step.name, step.undo);
    if (this.#errors.length === 0) return;
    const messages = this.#errors.map((error) => (error instanceof Error ? error.message : String(error)));
    throw new MeshError(`the host stopped, but not cleanly: ${messages.join("; ")}`, { code: "STOP_FAILED", cause: new AggregateError(this.#errors) });
  }
}

async function withLimit(name: string, step: () => unknown): Promise<void> {
  const done = await within(Promise.resolve().then(step), STEP_LIMIT_MS);
  if (done === null) throw new MeshError(`${name} took longer than ${STEP_LIMIT_MS}ms`);
}
