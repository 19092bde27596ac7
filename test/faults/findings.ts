import { History } from "./history.js";
import type { Call } from "./history.js";

/** What one run has seen, and what is wrong with it: all that the checkers need. */
export class Findings {
  readonly history = new History();
  readonly violations: string[] = [];
  /** Failed calls that are put down to a starved machine. */
  readonly unjudged: Call[] = [];
  /** Names of nodes that the scenario itself stops by SIGSTOP, or keeps busy: their stalls are not the machine's doing. */
  readonly frozen: string[] = [];

  check(holds: boolean, violation: string): void {
    if (!holds) this.violations.push(violation);
  }

  /** For rules over many operations: one violation, with the first few that break it. */
  none(broken: readonly unknown[], rule: string): void {
    const shown = broken.slice(0, 3).map((entry) => (typeof entry === "string" ? entry : JSON.stringify(entry)));
    this.check(broken.length === 0, `${rule}: ${broken.length}, as ${shown.join("; ")}`);
  }

  /** Time between the two in ms, without that in which the machine let processes of the cluster wait. */
  took(from: number, to: number): number {
    return to - from - this.history.stalledMs(from, to, this.frozen);
  }
}
