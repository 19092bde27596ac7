import { setTimeout as sleep } from "node:timers/promises";
import { service, worker, type Context } from "@chimpbase/mesh";
import { now } from "./history.js";
import type { Effect, Heard } from "./history.js";
import type { Journal } from "./journal.js";
import { GROUPS } from "./protocol.js";

export interface Payload {
  readonly emitter: string;
  readonly seq: number;
  readonly jobMs?: number;
}

const QUEUE = "fault.jobs";
/** One in so many jobs of transactions fails once, after its emit. */
const STUMBLES = 5;

/** What one node runs under faults. Services and the worker write rows as their effects; broadcasts go to the journal. */
export class FaultServices {
  /** Events of `exercise` that have come. */
  readonly exercised = { broadcasts: 0, balanced: 0 };
  readonly #node: string;
  readonly #journal: Journal;

  constructor(node: string, journal: Journal) {
    this.#node = node;
    this.#journal = journal;
  }

  /** The same event in two groups. */
  get services(): readonly ReturnType<typeof service>[] {
    return [this.#probe(), service({ name: GROUPS[1], events: { "fault.balanced": this.#balanced(GROUPS[1]) } })];
  }

  get worker(): ReturnType<typeof worker> {
    return worker(QUEUE, (ctx: Context, payload: Payload) => this.#insert(ctx, "job", payload));
  }

  #insert(ctx: Context, event: Effect["event"], { emitter, seq }: Payload, group: string = GROUPS[0]): Promise<unknown> {
    return ctx.db.query("INSERT INTO effects (event, grp, node, emitter, seq) VALUES (?1, ?2, ?3, ?4, ?5)", [event, group, this.#node, emitter, seq]);
  }

  #hear(event: Heard["event"], { emitter, seq }: Payload): void {
    this.#journal.add({ kind: "heard", event, node: this.#node, emitter, seq, at: now() });
  }

  #balanced(group: string): { readonly balanced: true; readonly handler: (ctx: Context, payload: Payload) => Promise<void> } {
    return {
      balanced: true,
      handler: async (ctx, payload) => {
        await this.#insert(ctx, "balanced", payload, group);
        if (payload.jobMs !== undefined) await sleep(payload.jobMs);
      },
    };
  }

  #probe(): ReturnType<typeof service> {
    return service({
      name: GROUPS[0],
      version: 1,
      actions: {
        work: async (_ctx: Context, { ms }: { ms: number }) => {
          if (ms > 0) await sleep(ms);
          return this.#node;
        },
        ask: (ctx: Context) => ctx.db.query("SELECT 1"),
        hold: (ctx: Context, { ms }: { ms: number }) => ctx.transaction((tx) => tx.db.query("SELECT pg_sleep(?1::float8 / 1000)", [ms])),
        burn: (_ctx: Context, { ms }: { ms: number }) => {
          for (const end = performance.now() + ms; performance.now() < end; );
          return this.#node;
        },
        transact: (ctx: Context, payload: Payload & { fails: boolean }) => ctx.transaction((tx) => this.#transact(tx, payload)),
      },
      events: {
        "fault.balanced": this.#balanced(GROUPS[0]),
        "fault.transaction": { balanced: true, handler: (ctx: Context, payload: Payload) => this.#follow(ctx, payload) },
        "fault.followed": { balanced: true, handler: (ctx: Context, payload: Payload) => this.#insert(ctx, "follow-up", payload) },
        "fault.announced": (_ctx: Context, payload: Payload) => this.#hear("transaction", payload),
        "fault.broadcast": (_ctx: Context, payload: Payload) => this.#hear("broadcast", payload),
        "fault.exercise": () => void this.exercised.broadcasts++,
        "fault.exercise.balanced": { balanced: true, handler: () => void this.exercised.balanced++ },
      },
    });
  }

  /** A row, an event for a group, one for all, and a job. */
  async #transact(tx: Context, payload: Payload & { fails: boolean }): Promise<void> {
    await this.#insert(tx, "mark", payload);
    await tx.mesh.emit("fault.transaction", payload, { balanced: true });
    await tx.mesh.emit("fault.announced", payload, { balanced: false });
    await tx.queue.enqueue(QUEUE, payload);
    await sleep(10);
    if (payload.fails) throw Object.assign(new Error("rolled back"), { code: "ROLLED_BACK" });
  }

  /** What a job emits is of its own transaction. */
  async #follow(ctx: Context, payload: Payload): Promise<void> {
    await this.#insert(ctx, "transaction", payload);
    await ctx.mesh.emit("fault.followed", payload, { balanced: true });
    if (ctx.event!.attempt === 1 && payload.seq % STUMBLES === 0) throw new Error("the first attempt fails");
  }
}
