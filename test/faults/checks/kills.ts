import { accepted, callsOf, effectsOf, failed, retried } from "../checks.js";
import { idOf } from "../history.js";
import { GROUPS, LEASE_MS } from "../protocol.js";
import type { Findings } from "../findings.js";
import type { Call, Transition } from "../history.js";

/** From the kill until every caller has seen its connection break, through a proxy, on a machine that is busy. */
export const NOTICE_MS = 250;
/** From the kill until what is sent there is not taken any more: the kernel has to clear the process away, for which it takes 30 ms where three others compute on two cores. */
const DEAF_MS = 150;
/** After a kill, until nobody asks the node any more. */
const ROUTED_MS = 1_000;
/** For how long calls are looked at from then on, and how much longer than their action they may take. */
const LOOK_MS = 500;
const DETOUR_MS = 150;
/** Between the kill as the harness sees it and the clock of Postgres. */
const AUDIT_SLACK_MS = 150;

interface Identity {
  readonly name: string;
  readonly nodeId: string;
}

export interface Kill {
  readonly at: number;
  readonly victim: Identity;
  readonly survivors: readonly Identity[];
}

/** Of all nodes that have ever run; of one that was killed, what had ended by then. */
export function callsUntilKilled(findings: Findings, nodes: readonly Identity[], kills: readonly Kill[]): Call[] {
  const endOf = new Map(kills.map(({ at, victim }) => [victim.name, at]));
  return callsOf(findings, nodes).filter(({ node, endedAt }) => endedAt <= (endOf.get(node) ?? Infinity));
}

/** Calls without retries that fail were on it, and fail at once and retryable. Some were. */
export function checkInFlight(findings: Findings, { at, victim, survivors }: Kill): void {
  const plain = callsOf(findings, survivors).filter((call) => !retried(call) && call.startedAt <= at + NOTICE_MS && call.endedAt >= at);
  const broken = plain.filter(failed);
  findings.check(broken.length > 0, "no call was under way on a node that was killed");
  findings.none(broken.filter(({ failedOn }) => failedOn !== victim.nodeId), "calls to other nodes that failed with a kill");
  findings.none(broken.filter(({ startedAt }) => findings.took(at, startedAt) > DEAF_MS), "failed calls that were not in flight when a node was killed");
  findings.none(broken.filter(({ endedAt }) => findings.took(at, endedAt) > NOTICE_MS), "calls that hung on a killed node");
  findings.none(broken.filter(({ error }) => !error!.startsWith("CALL_FAILED")), "calls that a kill failed with another error");
  findings.none(broken.filter(({ retryable }) => retryable !== true), "calls that a kill failed for good");
}

/** A second after the kill, each call runs elsewhere at once. `workMs`: of its action. */
export function checkRouting(findings: Findings, { at, victim, survivors }: Kill, workMs: number): void {
  const from = at + ROUTED_MS;
  const calls = callsOf(findings, survivors).filter(({ startedAt }) => startedAt >= from && startedAt < from + LOOK_MS);
  const stray = ({ startedAt, endedAt, error, ranOn }: Call): boolean =>
    error !== null || ranOn === victim.name || findings.took(startedAt, endedAt) > workMs + DETOUR_MS;
  findings.check(calls.length > 0, "no call began a second after a kill");
  findings.none(calls.filter(stray), "calls that still met a killed node a second later");
}

/** Every event accepted before the kill has its effect in each group soon after it at the latest. */
export function checkTakeover(findings: Findings, { at }: Kill): void {
  const pending = accepted(findings, "balanced").filter(({ endedAt }) => endedAt <= at);
  for (const group of GROUPS) {
    const effects = effectsOf(findings, "balanced", group);
    const ranAt = (node: string, seq: number): number => effects.get(idOf({ emitter: node, seq }))?.[0]?.at ?? Infinity;
    const late = pending.filter(({ node, seq }) => findings.took(at, ranAt(node, seq)) > LEASE_MS + 1_000);
    findings.none(late, `jobs of group ${group} that ran too late after a kill`);
  }
}

/** Others take the jobs that killed nodes held, within the lease, as Postgres saw it. Some were held. */
export function checkOrphans(findings: Findings, kills: readonly Kill[]): void {
  const orphans = kills.flatMap((kill) => orphansOf(findings, kill));
  findings.check(orphans.length > 0, "no node that was killed held a job");
  findings.none(orphans.filter(({ at, takenAt }) => findings.took(at, takenAt) > LEASE_MS + AUDIT_SLACK_MS), "jobs that were taken over later than leaseMs");
}

interface Orphan {
  readonly job: string;
  readonly at: number;
  readonly takenAt: number;
}

function orphansOf(findings: Findings, { at, victim }: Kill): Orphan[] {
  const steps = findings.history.all("transition");
  const later = steps.filter((step) => step.at > at && step.change !== "extend");
  return heldBy(victim, steps.filter((step) => step.at <= at)).flatMap((job) => {
    const next = later.find((step) => step.job === job);
    // Between the note of the kill and the signal it may still complete one.
    if (next?.change === "end" && next.by === victim.name && next.at - at <= AUDIT_SLACK_MS) return [];
    return [{ job, at, takenAt: next?.at ?? Infinity }];
  });
}

function heldBy({ nodeId }: Identity, steps: readonly Transition[]): string[] {
  const holders = new Map<string, string | null>();
  for (const { job, change, successor } of steps) {
    if (change === "claim") holders.set(job, successor);
    else if (change !== "extend") holders.delete(job);
  }
  return [...holders].filter(([, holder]) => holder === nodeId).map(([job]) => job);
}

/** Another node took a job from it, as Postgres saw it. */
export function hasLostJob({ history }: Findings, { nodeId, name }: Identity, since: number): boolean {
  return history.all("transition").some(({ change, holder, by, at }) => change === "release" && holder === nodeId && by !== name && at > since);
}
