import { timeoutError } from "../pipeline/bounded-run.js";
import { now } from "../pipeline/deadline.js";
import type { DeadlineView } from "../contract/registration.js";
import { MeshCallError } from "../errors.js";
import type { PeerConnections } from "./peer-connections.js";
import { TIMEOUT_HEADER, wireMs } from "./rpc-codec.js";
import { Exchange, type RawAnswer } from "./rpc-exchange.js";
import { SignedRequest } from "./rpc-signer.js";
import { markUndelivered } from "./undelivered.js";
import type { CallerWire } from "./wire-caller.js";

/** A request as it waits to be sent. */
export interface Sending {
  readonly action: string;
  readonly body: string;
  readonly deadline: DeadlineView;
}

export type Outcome = RawAnswer | { readonly error: Error };

/**
 * Sends a request, and calls `settle` once with what becomes of it. What is returned takes the request back: after that
 * `settle` is not called any more.
 */
export type Carrier = (settle: (outcome: Outcome) => void) => (reason: Error) => void;

/** The error of a call whose connection failed. `sent`: the request may have reached the peer. */
export type ToFailure = (peer: PeerConnections, cause: Error, sent: boolean) => Error;

export interface PostOptions {
  readonly maxAnswerBytes: number;
  readonly toFailure: ToFailure;
  /** Without the time that remains where they are a list: that is told when the request goes out. */
  readonly headers: readonly string[] | SignedRequest;
}

/** On a connection of its own, when one is free. */
export function byPost(peer: PeerConnections, sending: Sending, { maxAnswerBytes, toFailure, headers }: PostOptions): Carrier {
  return (settle) => {
    let over = (): void => undefined;
    const exchange = new Exchange({
      maxBytes: maxAnswerBytes,
      answering: () => void (peer.lastAnswerAt = now()),
      answered: settle,
      failed: (error, sent) => settle({ error: toFailure(peer, error, sent) }),
      released: () => over(),
    });
    const leaveQueue = peer.queue.add((ended) => {
      over = ended;
      return dispatch(peer, sending, headers, exchange);
    });
    return (reason) => {
      leaveQueue();
      exchange.abort(reason);
    };
  };
}

/** Among others on one connection, at once. */
export function byWire(wire: CallerWire, peer: PeerConnections, { body, deadline }: Sending, toFailure: ToFailure): Carrier {
  return (settle) =>
    wire.send(wireMs(deadline.remainingMs()), body, {
      answered: settle,
      failed: (error, sent) => settle({ error: toFailure(peer, error, sent) }),
      untaken: () => settle({ error: untaken(peer) }),
    });
}

/** Its turn has come. False where that took too long: the peer is spared a request that nobody waits for. */
function dispatch({ path, pool }: PeerConnections, { action, body, deadline }: Sending, headers: PostOptions["headers"], exchange: Exchange): boolean {
  const remainingMs = deadline.remainingMs();
  if (remainingMs <= 0) {
    exchange.expire(timeoutError(action, deadline.budgetMs));
    return false;
  }
  const full = headers instanceof SignedRequest ? headers : [...headers, TIMEOUT_HEADER, String(wireMs(remainingMs))];
  pool.dispatch({ path, method: "POST", headers: full, body }, exchange);
  return true;
}

function untaken({ nodeId, advertisedUrl }: PeerConnections): Error {
  return markUndelivered(new MeshCallError(`mesh peer ${nodeId} at ${advertisedUrl} has closed the connection, and has not taken the request`, { nodeId }));
}
