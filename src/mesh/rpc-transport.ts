import type { CancellationView, DeadlineView } from "../contract/registration.js";
import type { Meta } from "../contract/context.js";
import type { Candidate } from "./directory.js";

/** One attempt of a call, as it leaves for a peer. */
export interface RpcRequest {
  readonly actionName: string;
  readonly args: unknown;
  readonly meta: Meta;
  readonly requestId: string;
  /** Depth at which the action runs on the peer. */
  readonly level: number;
  /** The newest actions of the calling chain, newest first. */
  readonly chain: readonly string[];
}

/** Carries requests to peers: on wires, or by plain POST. */
export interface RpcTransport {
  /**
   * Resolves with the result, or rejects with the error that the caller shall see. Where `cancellation` aborts it rejects
   * at once and takes the request back, so that the peer cancels the handler. Does not watch `deadline`: it only tells
   * the peer what remains.
   */
  send(peer: Candidate, request: RpcRequest, deadline: DeadlineView, cancellation: CancellationView): Promise<unknown>;
  /** The peer is gone: its connections close once what is under way has ended. */
  drop(nodeId: string): void;
  /** Closes all connections; what is under way fails. */
  close(): Promise<void>;
}
