import type { Target } from "../contract/registration.js";
import type { DeclaredPolicy } from "./declared-policy.js";

/** A live peer as a target of calls. One object per peer, replaced when its row changes. */
export interface Candidate {
  readonly nodeId: string;
  readonly advertisedUrl: string;
  readonly rpcPath: string;
  /** It takes signed requests only. */
  readonly signed?: boolean;
  /** It takes requests on wires too. */
  readonly wire?: boolean;
  /** 0..1; 0 where the peer reports none. */
  readonly cpuLoad: number;
}

/** What calls need to know of the cluster. Every lookup is O(1) in actions, services and nodes. */
export interface NodeDirectory {
  /** Peers that serve the action, can be reached, are not draining and not under suspicion; where all are suspect, all of them. Stable order. */
  candidates(action: string): readonly Candidate[];
  /** The peer, if it is live and serves the action. */
  candidate(nodeId: string, action: string): Candidate | undefined;
  /** What the action declares on a peer that serves it. */
  declared(action: string): DeclaredPolicy | undefined;
  /** The peer refused or dropped a connection, drains, or let a call time out: avoided until its next heartbeat or a short back-off. */
  suspect(nodeId: string, drains?: boolean): void;
}

/** An action of a service registered on this node, ready to run. */
export interface LocalAction extends DeclaredPolicy {
  /** Full name. */
  readonly name: string;
  readonly target: Target;
}

export interface LocalActions {
  find(action: string): LocalAction | undefined;
}
