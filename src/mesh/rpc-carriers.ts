import { MeshTimeoutError } from "../errors.js";
import { timeoutError } from "../pipeline/bounded-run.js";
import { now } from "../pipeline/deadline.js";
import type { DeadlineView } from "../contract/registration.js";
import type { PeerConnections } from "./peer-connections.js";
import { TIMEOUT_HEADER, wireMs } from "./rpc-codec.js";
import { Exchange, type RawAnswer } from "./rpc-exchange.js";
import { SignedRequest } from "./rpc-signer.js";
import type { Begin, Ending } from "./send-queue.js";
import type { CallerWire } from "./wire-caller.js";

const ignore = (): void => undefined;

/** A request as it waits to be sent. */
export interface Sending {
  readonly action: string;
  readonly body: string;
  readonly deadline: DeadlineView;
}

/** Told once what becomes of a request. */
export interface Sender<Answer> {
  answered(answer: Answer): void;
  failed(error: Error): void;
}

/** Sends a request. What is returned takes it back: after that its sender is told nothing any more. */
export type Carrier<Answer> = (sender: Sender<Answer>) => (reason: Error) => void;

/** The error of a call whose connection failed. `sent`: the request may have reached the peer. */
export type ToFailure = (peer: PeerConnections, cause: Error, sent: boolean) => Error;

export interface PostOptions {
  readonly maxAnswerBytes: number;
  readonly toFailure: ToFailure;
  /** Without the time that remains where they are a list: that is told when the request goes out. */
  readonly headers: readonly string[] | SignedRequest;
}

/** On a connection of its own, when one is free. */
export function byPost(peer: PeerConnections, sending: Sending, { maxAnswerBytes, toFailure, headers }: PostOptions): Carrier<RawAnswer> {
  return (sender) => {
    let over = (): void => undefined;
    const exchange = new Exchange({
      maxBytes: maxAnswerBytes,
      answering: () => void (peer.lastAnswerAt = now()),
      answered: (answer) => sender.answered(answer),
      failed: (error, sent) => sender.failed(toFailure(peer, error, sent)),
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

/** Among others on one connection, when its turn has come. Answered with null where the wire has ended before the peer took the request. */
export function byWire(wire: CallerWire, peer: PeerConnections, { action, body, deadline }: Sending, toFailure: ToFailure): Carrier<RawAnswer | null> {
  return (sender) => {
    let over: (how?: Ending) => void = ignore;
    let takeBack = ignore;
    const begin: Begin = (ended) => {
      const remainingMs = deadline.remainingMs();
      if (remainingMs <= 0 || !wire.isOpen) {
        if (remainingMs <= 0) sender.failed(timeoutError(action, deadline.budgetMs));
        else sender.answered(null);
        return false;
      }
      over = ended;
      takeBack = wire.send(wireMs(remainingMs), body, {
        answered: (answer) => {
          ended("answered");
          sender.answered(answer);
        },
        failed: (error) => {
          ended();
          sender.failed(toFailure(peer, error, true));
        },
        untaken: () => {
          ended();
          sender.answered(null);
        },
      });
      return true;
    };
    const leaveQueue = peer.wireQueue.add(begin, deadline.budgetMs);
    return (reason) => {
      leaveQueue();
      takeBack();
      over(reason instanceof MeshTimeoutError ? "late" : "other");
    };
  };
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
