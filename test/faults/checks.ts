import { idOf, now } from "./history.js";
import type { Call, Effect, Emit, Heard } from "./history.js";
import type { FaultNode } from "./cluster.js";
import type { Trial } from "./trial.js";

const ARRIVAL_LIMIT_MS = 10_000;

/** A node that was subscribed from one time to another. */
export interface Listening {
  readonly node: FaultNode;
  readonly from: number;
  readonly to: number;
}

export function listeningThroughout(nodes: readonly FaultNode[]): Listening[] {
  return nodes.map((node) => ({ node, from: 0, to: Infinity }));
}

const emitId = ({ node, seq }: Emit): string => idOf({ emitter: node, seq });

export function accepted(trial: Trial, event: Emit["event"]): Emit[] {
  return trial.history.all("emit").filter((emit) => emit.event === event && emit.error === null);
}

export function effectsOf(trial: Trial, event: Effect["event"]): Map<string, Effect[]> {
  return groupBy(trial.history.all("effect").filter((effect) => effect.event === event), idOf);
}

/** Every accepted balanced event has its effect, and no event has two. An emit that failed may have been committed. */
export function checkExactlyOnce(trial: Trial): void {
  const effects = effectsOf(trial, "balanced");
  const lost = accepted(trial, "balanced").filter((emit) => !effects.has(emitId(emit)));
  trial.none(lost, "accepted balanced events without effect");
  trial.none([...effects.values()].filter(({ length }) => length > 1), "balanced events with more than one effect");
}

/** Every accepted broadcast within its time, once, in order of each emitter. Waits for those on their way. */
export async function checkBroadcasts(trial: Trial, listening: readonly Listening[]): Promise<void> {
  const emits = accepted(trial, "broadcast");
  const due = (to: Listening): Emit[] => emits.filter(({ startedAt, endedAt }) => startedAt >= to.from && endedAt <= to.to);
  const missing = (to: Listening): string[] => {
    const got = new Set(heardBy(trial, to).map(idOf));
    return due(to).map(emitId).filter((id) => !got.has(id));
  };
  const end = now() + ARRIVAL_LIMIT_MS;
  while (listening.some((to) => missing(to).length > 0) && now() < end) await trial.pause(50);
  for (const to of listening) checkListener(trial, to.node.name, heardBy(trial, to), missing(to));
}

function heardBy(trial: Trial, { node }: Listening): Heard[] {
  return trial.history.all("heard").filter((heard) => heard.node === node.name);
}

function checkListener(trial: Trial, name: string, heard: readonly Heard[], missing: readonly string[]): void {
  trial.none(missing, `broadcasts that never reached ${name}`);
  for (const [emitter, events] of groupBy(heard, (event) => event.emitter)) {
    const disordered = events.filter(({ seq }, index) => index > 0 && seq <= events[index - 1]!.seq);
    trial.none(disordered, `broadcasts of ${emitter} twice or out of order on ${name}`);
  }
}

export function callsOf(trial: Trial, nodes: readonly FaultNode[]): Call[] {
  const names = new Set(nodes.map(({ name }) => name));
  return trial.history.all("call").filter(({ node }) => names.has(node));
}

export const failed = ({ error }: Call): boolean => error !== null;
export const retried = ({ attempts }: Call): boolean => attempts > 0;

/** How long before its end a call is looked at for stalls: a caller that did not run has not heard what its peers told. */
const HEARSAY_MS = 1_000;
/** Stalls in that time, over all processes, from which on a failure says nothing of the mesh. */
const STARVED_MS = 200;

/** Failed calls, without those that a starved machine explains. */
function unexplained(trial: Trial, calls: readonly Call[]): Call[] {
  const broken = calls.filter(failed);
  const judged = broken.filter(({ startedAt, endedAt }) => {
    return trial.history.stalledMs(Math.min(startedAt, endedAt - HEARSAY_MS), endedAt, trial.frozen) < STARVED_MS;
  });
  trial.unjudged += broken.length - judged.length;
  return judged;
}

/** Calls may fail where they were started in one of the times of trouble, `[from, to]`; those with retries never. */
export function checkCalls(trial: Trial, calls: readonly Call[], troubles: readonly (readonly [number, number])[]): void {
  trial.none(unexplained(trial, calls.filter(retried)), "failed calls among those with retries");
  const clean = calls.filter(({ startedAt }) => !troubles.some(([from, to]) => startedAt >= from && startedAt <= to));
  trial.none(unexplained(trial, clean.filter((call) => !retried(call))), "failed calls that no fault explains");
  trial.check(calls.some((call) => !failed(call)), "no call has come back");
}

function groupBy<T>(list: readonly T[], key: (entry: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const entry of list) {
    const group = groups.get(key(entry));
    if (group === undefined) groups.set(key(entry), [entry]);
    else group.push(entry);
  }
  return groups;
}
