import { setTimeout as sleep } from "node:timers/promises";
import { idOf, now } from "./history.js";
import { GROUPS } from "./protocol.js";
import type { Call, Effect, Emit, Heard, Query } from "./history.js";
import type { Findings } from "./findings.js";

const ARRIVAL_LIMIT_MS = 10_000;

export interface Named {
  readonly name: string;
}

/** A node that was subscribed from one time to another. */
export interface Listening {
  readonly node: Named;
  readonly from: number;
  readonly to: number;
}

export function listeningThroughout(nodes: readonly Named[]): Listening[] {
  return nodes.map((node) => ({ node, from: 0, to: Infinity }));
}

const emitId = ({ node, seq }: Emit): string => idOf({ emitter: node, seq });

export function accepted(findings: Findings, event: Emit["event"]): Emit[] {
  return findings.history.all("emit").filter((emit) => emit.event === event && emit.error === null);
}

/** By the emit that they are of. */
export function effectsOf(findings: Findings, event: Effect["event"], group: string = GROUPS[0]): Map<string, Effect[]> {
  return groupBy(findings.history.all("effect").filter((effect) => effect.event === event && effect.group === group), idOf);
}

/** Every accepted balanced event has its effect in each group, and no event has two in one. An emit that failed may have been committed. */
export function checkExactlyOnce(findings: Findings): void {
  const emits = accepted(findings, "balanced");
  findings.check(emits.length > 0, "no balanced event was accepted");
  for (const group of GROUPS) {
    const effects = effectsOf(findings, "balanced", group);
    findings.none(emits.filter((emit) => !effects.has(emitId(emit))), `accepted balanced events without effect in group ${group}`);
    findings.none([...effects.values()].filter(({ length }) => length > 1), `balanced events with more than one effect in group ${group}`);
  }
}

/** No broadcast was heard later than `limitMs` after it was accepted. */
export function checkPunctuality(findings: Findings, limitMs: number): void {
  const emits = new Map(accepted(findings, "broadcast").map((emit) => [emitId(emit), emit]));
  const late = findings.history.all("heard").filter((heard) => {
    const emit = heard.event === "broadcast" ? emits.get(idOf(heard)) : undefined;
    return emit !== undefined && findings.took(emit.endedAt, heard.at) > limitMs;
  });
  findings.none(late, `broadcasts heard later than ${limitMs} ms after they were accepted`);
}

/** Every accepted broadcast within its time, once, in order of each emitter. Waits for those on their way. */
export async function checkBroadcasts(
  findings: Findings,
  listening: readonly Listening[],
  event: Heard["event"] = "broadcast",
  limitMs = ARRIVAL_LIMIT_MS,
): Promise<void> {
  const emits = accepted(findings, event);
  const due = (to: Listening): Emit[] => emits.filter(({ startedAt, endedAt }) => startedAt >= to.from && endedAt <= to.to);
  const missing = (to: Listening): string[] => {
    const got = new Set(heardBy(findings, to, event).map(idOf));
    return due(to).map(emitId).filter((id) => !got.has(id));
  };
  findings.check(emits.length > 0, `no ${event} event was accepted`);
  const end = now() + limitMs;
  while (listening.some((to) => missing(to).length > 0) && now() < end) await sleep(50);
  for (const to of listening) checkListener(findings, to.node.name, heardBy(findings, to, event), missing(to));
}

function heardBy(findings: Findings, { node }: Listening, event: Heard["event"]): Heard[] {
  return findings.history.all("heard").filter((heard) => heard.event === event && heard.node === node.name);
}

function checkListener(findings: Findings, name: string, heard: readonly Heard[], missing: readonly string[]): void {
  findings.none(missing, `broadcasts that never reached ${name}`);
  for (const [emitter, events] of groupBy(heard, (event) => event.emitter)) {
    const disordered = events.filter(({ seq }, index) => index > 0 && seq <= events[index - 1]!.seq);
    findings.none(disordered, `broadcasts of ${emitter} twice or out of order on ${name}`);
  }
}

export function callsOf(findings: Findings, nodes: readonly Named[]): Call[] {
  const names = new Set(nodes.map(({ name }) => name));
  return findings.history.all("call").filter(({ node }) => names.has(node));
}

export const failed = ({ error }: Call): boolean => error !== null;
export const retried = ({ attempts }: Call): boolean => attempts > 0;

/** What says that the database could not do it, and nothing else. */
const DATABASE_TROUBLE = /^(DATABASE_UNAVAILABLE|OVERLOADED|TIMEOUT)/;

/** Of a node that was told to stop. */
const STOPPING = /^(MESH_NOT_RUNNING|OUTBOX_CLOSED)/;

/** An emit's own wait for a connection, and that of the commit before it. No fault keeps Postgres from answering for longer. */
const EMIT_LIMIT_MS = 10_000;
const EMIT_SLACK_MS = 500;

/** Of a transaction: told apart from all that says it has not committed. */
const IN_DOUBT = /^COMMIT_UNKNOWN/;

/** Emits are accepted, or fail for want of the database and say so, in time; on a node that stops, also for that. */
export function checkEmits(findings: Findings, stopping = false): void {
  const isClear = (error: string): boolean => DATABASE_TROUBLE.test(error) || (stopping && STOPPING.test(error));
  const endsTransaction = ({ event, error }: Emit): boolean => event === "transaction" && (error === "ROLLED_BACK" || IN_DOUBT.test(error!));
  const emits = findings.history.all("emit");
  findings.none(emits.filter((emit) => emit.error !== null && !isClear(emit.error) && !endsTransaction(emit)), "emits that failed without a clear error");
  findings.none(emits.filter(({ startedAt, endedAt }) => findings.took(startedAt, endedAt) > EMIT_LIMIT_MS + EMIT_SLACK_MS), "emits that took longer than their budget");
}

/** Questions to the database are answered, or fail clearly, within their budget and `slackMs`. */
export function checkQueries(findings: Findings, budgetMs: number, slackMs: number): void {
  const queries = findings.history.all("query");
  const late = ({ startedAt, endedAt }: Query): boolean => findings.took(startedAt, endedAt) > budgetMs + slackMs;
  findings.none(queries.filter(({ error }) => error !== null && !DATABASE_TROUBLE.test(error)), "questions that failed without a clear error");
  findings.none(queries.filter(late), "questions that took longer than their budget");
  findings.check(queries.some(({ error }) => error === null), "no question was answered");
}

/** How long before its end a call is looked at for stalls: a caller that did not run has not heard what its peers told. */
const HEARSAY_MS = 1_000;
/** Stalls in that time from which on a failure says nothing of the mesh. */
const STARVED_MS = 200;
/** Share of the calls that may be left unjudged. */
const MOST_UNJUDGED = 0.01;

/** Failed calls, without those that a starved machine explains. */
function unexplained(findings: Findings, calls: readonly Call[]): Call[] {
  const broken = calls.filter(failed);
  const isStarved = ({ startedAt, endedAt }: Call): boolean =>
    findings.history.stalledMs(Math.min(startedAt, endedAt - HEARSAY_MS), endedAt, findings.frozen) >= STARVED_MS;
  findings.unjudged.push(...broken.filter(isStarved));
  return broken.filter((call) => !isStarved(call));
}

/** Calls may fail where some of their time was one of trouble, `[from, to]`; those with retries never. */
export function checkCalls(findings: Findings, calls: readonly Call[], troubles: readonly (readonly [number, number])[]): void {
  findings.none(unexplained(findings, calls.filter(retried)), "failed calls among those with retries");
  const clean = calls.filter(({ startedAt, endedAt }) => !troubles.some(([from, to]) => startedAt <= to && endedAt >= from));
  findings.none(unexplained(findings, clean.filter((call) => !retried(call))), "failed calls that no fault explains");
  findings.check(calls.some((call) => !failed(call)), "no call has come back");
  const { length: unjudged } = findings.unjudged;
  findings.check(unjudged <= MOST_UNJUDGED * calls.length, `${unjudged} of ${calls.length} calls cannot be judged: the machine is too busy`);
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
