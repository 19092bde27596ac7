import type { Cancellation } from "../pipeline/cancellation.js";
import type { Consumer } from "./consumers.js";
import type { JobSession } from "./job-session.js";
import type { Lane } from "./lane.js";
import type { ClaimedJob } from "./queue.js";

/** The row of a claim, which must stay as long as a job of it may be under its token. */
export interface OpenClaim {
  readonly token: string;
  /** Jobs of it that have not ended. */
  open: number;
}

/** A job that this process has claimed, from the claim to the end of its lease. */
export class HeldJob {
  readonly claimed: ClaimedJob;
  readonly claim: OpenClaim;
  readonly lane: Lane;
  /** Monotonic; from before the claim was sent, so never too late. */
  readonly heldSince: number;
  /** When the lease ends unless extended; monotonic, never too late. */
  leaseEnd: number;
  /** Set when the job starts. */
  consumers: readonly Consumer[] = [];
  cancellation: Cancellation | undefined;
  session: JobSession | undefined;
  /** The handlers have ended: the outcome is on its way to the database. */
  settling = false;
  /** The lease is lost or was given up: nothing that follows may complete or fail the job. */
  surrendered = false;

  constructor(claimed: ClaimedJob, claim: OpenClaim, lane: Lane, heldSince: number, leaseMs: number) {
    this.claimed = claimed;
    this.claim = claim;
    this.lane = lane;
    this.heldSince = heldSince;
    this.leaseEnd = heldSince + leaseMs;
  }

  get name(): string {
    return `${this.claimed.queue}#${this.claimed.id}`;
  }

  surrender(reason: Error): void {
    this.surrendered = true;
    this.cancellation?.abort(reason);
  }
}
