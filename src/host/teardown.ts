import { MeshError } from "../errors.js";
import { now } from "../pipeline/deadline.js";
import { within } from "../pipeline/time-limit.js";
import type { Logger } from "../logger.js";

/** Longest time that one step may take; the others run all the same. */
const STEP_LIMIT_MS = 10_000;
/** Longest time that the host's own parts may take together: where Postgres hangs, each of them waits for it. */
const SHARED_LIMIT_MS = 5_000;
/** What each of them may take even where the others have taken all. */
const LEAST_MS = 300;

interface Step {
  readonly name: string;
  readonly undo: (limitMs: number) => unknown;
  readonly shares: boolean;
}

/** What must be undone, last done first. Every step runs, whatever becomes of the others. */
export class Teardown {
  readonly #log: Logger;
  readonly #steps: Step[] = [];
  readonly #errors: unknown[] = [];
  #sharedLeftMs = SHARED_LIMIT_MS;

  constructor(log: Logger) {
    this.#log = log;
  }

  push(name: string, undo: () => unknown): void {
    this.#steps.push({ name, undo, shares: false });
  }

  /** A part of the host, of which all share one limit. `undo` is told its share; what takes longer is left behind, with a warning. */
  pushPart(name: string, undo: (limitMs: number) => unknown): void {
    this.#steps.push({ name, undo, shares: true });
  }

  /** Runs `step` now, within the limit; what it throws is logged and kept for `finish`. */
  async attempt(name: string, step: () => unknown): Promise<void> {
    try {
      if (!(await endsWithin(STEP_LIMIT_MS, step))) throw new MeshError(`${name} took longer than ${STEP_LIMIT_MS}ms`);
    } catch (error) {
      this.#note(name, error);
    }
  }

  /** Undoes everything. Rejects with `MeshError`, code `STOP_FAILED`, after all of it where steps failed. */
  async finish(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      await (step.shares ? this.#endPart(step) : this.attempt(step.name, () => step.undo(STEP_LIMIT_MS)));
    }
    if (this.#errors.length === 0) return;
    const messages = this.#errors.map((error) => (error instanceof Error ? error.message : String(error)));
    throw new MeshError(`the host stopped, but not cleanly: ${messages.join("; ")}`, { code: "STOP_FAILED", cause: new AggregateError(this.#errors) });
  }

  /** No failure where the time is up: what is left of it fails when the pool closes, and nothing that is in Postgres is lost. */
  async #endPart({ name, undo }: Step): Promise<void> {
    const limitMs = Math.max(LEAST_MS, this.#sharedLeftMs);
    const begun = now();
    try {
      if (!(await endsWithin(limitMs, () => undo(limitMs)))) this.#log.warn(`stopping: ${name} is not waited for any longer`);
    } catch (error) {
      this.#note(name, error);
    }
    this.#sharedLeftMs -= now() - begun;
  }

  #note(name: string, error: unknown): void {
    this.#errors.push(error);
    this.#log.error(`stopping: ${name} failed`, { err: error });
  }
}

/** False where `step` has not ended within `limitMs`. */
async function endsWithin(limitMs: number, step: () => unknown): Promise<boolean> {
  return (await within(Promise.resolve().then(step), limitMs)) !== null;
}
