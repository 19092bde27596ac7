import { Inbox, type Drained } from "./inbox.js";
import { clock, each, measureRate, pace, summary, type Latencies, type Rate } from "./measure.js";
import type { CallKind, Running } from "./roles.js";

export interface Command {
  readonly id: number;
  readonly name: string;
  readonly args: Readonly<Record<string, number>>;
}

type Args = Command["args"];

const WIDE = { a: 40, b: 2, label: "an order", currency: "EUR", urgent: true };
const ARGS = {
  add: { a: 40, b: 2 },
  addLater: { a: 40, b: 2 },
  addChecked: WIDE,
  addUnchecked: WIDE,
  slow: { ms: 200 },
};

/** The same loops for every system: only what they drive differs. */
export function commands(running: Running): Readonly<Record<string, (args: Args) => Promise<unknown>>> {
  const inbox = new Inbox((handler) => needed(running, "consume")(handler));
  return {
    calls: (args) => calls(running, args),
    paced: (args) => pacedCalls(running, args),
    load: ({ from, to }) => needed(running, "load")(from!, to!),
    publish: ({ from, to, concurrency }) => publish(running, from!, to!, concurrency!),
    emit: ({ from, rate, ms }) => pace((i, at) => needed(running, "add")({ i: from! + i, at }), rate!, ms!),
    open: () => inbox.open(),
    // Two commands, so that nothing is published before everybody waits for it.
    arm: async ({ from, to, ms, measuredFrom }) => inbox.arm(from!, to!, ms!, measuredFrom),
    arrived: () => inbox.arrived(),
    disarm: async () => inbox.disarm(),
    collect: async () => inbox.collect(),
    close: () => inbox.close(),
    take: ({ count, ms }) => take(inbox, count!, ms!),
    ready: async () => undefined,
    ...running.special,
  };
}

function needed<K extends keyof Running>(running: Running, name: K): NonNullable<Running[K]> {
  const found = running[name];
  if (found === undefined) throw new Error(`this role has no ${name}`);
  return found;
}

const KINDS: readonly CallKind[] = ["add", "addLater", "addChecked", "addUnchecked", "echo", "slow"];
/** Commands carry numbers only; a kind of call travels as its place here. */
export const kindNumber = (kind: CallKind): number => KINDS.indexOf(kind);

function calls(running: Running, { kind, bytes, concurrency, ms }: Args): Promise<Rate> {
  return measureRate(checkedCall(running, KINDS[kind!]!, bytes ?? 0), concurrency!, ms!);
}

function checkedCall(running: Running, kind: CallKind, bytes: number): () => Promise<void> {
  const call = needed(running, "call");
  if (kind === "echo") {
    const text = "0123456789abcdef".repeat(Math.ceil(bytes / 16)).slice(0, bytes);
    return async () => {
      const answer = (await call(kind, { text })) as { text: string };
      if (answer.text !== text) throw new Error("the echo differs from what was sent");
    };
  }
  const args = ARGS[kind];
  return async () => {
    const answer = (await call(kind, args)) as { sum: number };
    if (answer.sum !== 42) throw new Error(`wrong sum: ${JSON.stringify(answer)}`);
  };
}

/** Calls at a fixed rate; with `slowEvery`, every so-many-th takes 200 ms. The latencies are those of the fast ones, from when each was due. */
async function pacedCalls(running: Running, { rate, ms, slowEvery }: Args): Promise<Latencies> {
  const fast = checkedCall(running, "add", 0);
  const slow = checkedCall(running, "slow", 0);
  const latencies: number[] = [];
  const timed = async (dueAt: number): Promise<void> => {
    await fast();
    latencies.push(clock() - dueAt);
  };
  await pace((i, dueAt) => (slowEvery !== 0 && i % slowEvery! === 0 ? slow() : timed(dueAt)), rate!, ms!);
  return summary(latencies);
}

/** Resolves with the moment of the first. */
async function publish(running: Running, from: number, to: number, concurrency: number): Promise<number> {
  const add = needed(running, "add");
  const started = clock();
  await each(from, to, concurrency, (i) => add({ i, at: clock() }));
  return started;
}

async function take(inbox: Inbox, count: number, limitMs: number): Promise<Drained> {
  inbox.armAny(count, limitMs);
  await inbox.open();
  try {
    return await inbox.arrived();
  } finally {
    await inbox.close();
  }
}
