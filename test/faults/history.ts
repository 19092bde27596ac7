import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Times are those of this machine's clock in ms, `now()` below. `node` is the name of a process, new for each start. */
export type Entry = Call | Query | Emit | Heard | Resync | Effect | Transition | Omission | Fault | Stall;

export interface Call {
  readonly kind: "call";
  readonly node: string;
  /** Tries allowed after the first. */
  readonly attempts: number;
  readonly startedAt: number;
  readonly endedAt: number;
  /** Node that ran it; null where it failed. */
  readonly ranOn: string | null;
  readonly error: string | null;
  /** What the error says of itself; null where there is none. */
  readonly retryable: boolean | null;
  /** Id of the node that the error names. */
  readonly failedOn: string | null;
}

/** One call of a local action that asks the database one question. */
export interface Query {
  readonly kind: "query";
  readonly node: string;
  readonly startedAt: number;
  readonly endedAt: number;
  readonly error: string | null;
}

/** One emit, or one transaction with an emit in it. `kept`: over the bus with a short retention. */
export interface Emit {
  readonly kind: "emit";
  readonly event: "balanced" | "broadcast" | "transaction" | "kept";
  readonly node: string;
  /** Counts the emits of this event on this node. */
  readonly seq: number;
  readonly startedAt: number;
  readonly endedAt: number;
  /** Accepted where null. `ROLLED_BACK`: by the handler's own will. */
  readonly error: string | null;
}

/** A broadcast at a handler. */
export interface Heard {
  readonly kind: "heard";
  readonly event: "broadcast" | "kept" | "transaction";
  readonly node: string;
  readonly emitter: string;
  readonly seq: number;
  readonly at: number;
}

/** A node was told that it may have missed broadcasts. */
export interface Resync {
  readonly kind: "resync";
  readonly node: string;
  readonly at: number;
}

/** A row that a balanced handler, a job or a transaction has written. `follow-up`: for an event that a job has emitted. */
export interface Effect {
  readonly kind: "effect";
  readonly event: "balanced" | "transaction" | "mark" | "job" | "follow-up";
  readonly group: string;
  readonly node: string;
  readonly emitter: string;
  readonly seq: number;
  readonly at: number;
}

/** One change of a claimed job, or its claim, as Postgres saw it. */
export interface Transition {
  readonly kind: "transition";
  readonly job: string;
  readonly change: "claim" | "extend" | "release" | "end";
  /** Name of the node whose connection made it. */
  readonly by: string;
  /** Id of the node that held the job before, and of the one that holds it afterwards. */
  readonly holder: string | null;
  readonly successor: string | null;
  /** The fence token stayed the same. */
  readonly kept: boolean;
  /** The lease had run out before; null where there was none. */
  readonly expired: boolean | null;
  readonly at: number;
}

/** Load that a node should have made, and did not: it did not run, or too much was under way. */
export interface Omission {
  readonly kind: "omission";
  readonly node: string;
  /** Operations; parts of one count. */
  readonly operations: number;
  readonly at: number;
}

export interface Fault {
  readonly kind: "fault";
  readonly what: string;
  readonly at: number;
}

/** The machine was too busy to let a process run, or it was frozen by a fault. */
export interface Stall {
  readonly kind: "stall";
  readonly node: string;
  readonly from: number;
  readonly to: number;
}

type Kind = Entry["kind"];
type Of<K extends Kind> = Extract<Entry, { kind: K }>;

/** The same for all processes of this machine. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}

/** Name of an emit, over all nodes. */
export function idOf({ emitter, seq }: { emitter: string; seq: number }): string {
  return `${emitter}/${seq}`;
}

/** All that happened in one run of one scenario. */
export class History {
  readonly #entries: Entry[] = [];
  readonly #byKind = new Map<Kind, Entry[]>();

  add(...entries: readonly Entry[]): void {
    for (const entry of entries) {
      this.#entries.push(entry);
      this.#listOf(entry.kind).push(entry);
    }
  }

  all<K extends Kind>(kind: K): readonly Of<K>[] {
    return this.#listOf(kind) as Of<K>[];
  }

  /** What was checked. */
  get operations(): number {
    return this.#entries.length - this.all("fault").length - this.all("stall").length - this.all("omission").length;
  }

  /**
   * For how long, between two times, some process did not get to run, in ms; without those that a fault has frozen. What
   * several of them missed at the same time counts once.
   */
  stalledMs(from: number, to: number, frozen: readonly string[] = []): number {
    const stalls = this.all("stall").filter((stall) => stall.to > from && stall.from < to && !frozen.includes(stall.node));
    let stalledMs = 0;
    let end = from;
    for (const stall of stalls.sort((a, b) => a.from - b.from)) {
      stalledMs += Math.max(0, Math.min(to, stall.to) - Math.max(end, stall.from));
      end = Math.max(end, stall.to);
    }
    return stalledMs;
  }

  /** Writes JSON lines; resolves with the path. */
  async save(directory: string, name: string, head: object): Promise<string> {
    await mkdir(directory, { recursive: true });
    const path = join(directory, `${name}.jsonl`);
    await writeFile(path, [head, ...this.#entries].map((entry) => `${JSON.stringify(entry)}\n`).join(""));
    return path;
  }

  #listOf(kind: Kind): Entry[] {
    const list = this.#byKind.get(kind) ?? [];
    this.#byKind.set(kind, list);
    return list;
  }
}
