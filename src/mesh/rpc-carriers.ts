import { MeshTimeoutError } from "../errors.js";
import { timeoutError } from "../pipeline/bounded-run.js";
import { now } from "../pipeline/deadline.js";
import type { CancellationView, DeadlineView } from "../contract/registration.js";
import type { PeerConnections } from "./peer-connections.js";
import { TIMEOUT_HEADER, wireMs } from "./rpc-codec.js";
import { Exchange, type RawAnswer } from "./rpc-exchange.js";
import { SignedRequest } from "./rpc-signer.js";
import { LONGEST_WAIT, overloaded } from "./peer-overload.js";
import type { Ending, SendQueue } from "./send-queue.js";
import type { CallerWire } from "./wire-caller.js";

const ignore = (): void => undefined;

/** A call that had less time than this proves nothing about the peer that did not answer it. */
export const TELLING_WAIT_MS = 50;
/** Nor does one that was sent with less than this share of its time. */
const TELLING_SHARE = 0.4;
/** Status of an answer that is a `MeshTimeoutError`. */
const TIMED_OUT = 408;

/** A request as it waits to be sent. */
export interface Sending {
  readonly action: string;
  readonly body: string;
  readonly deadline: DeadlineView;
  readonly cancellation: CancellationView;
}

/** Told once what becomes of a request. */
export interface Sender<Answer> {
  answered(answer: Answer): void;
  failed(error: Error): void;
}

/** Takes a request back: after that its sender is told nothing any more. Returns whether it had been sent. */
export type TakeBack = (reason: Error) => boolean;

/** Sends a request. */
export type Carrier<Answer> = (sender: Sender<Answer>) => TakeBack;

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
    let sent = false;
    const leaveQueue = peer.queue.add((ended) => {
      over = ended;
      return (sent = !sending.cancellation.aborted && dispatch(peer, sending, headers, exchange));
    });
    return (reason) => {
      leaveQueue();
      exchange.abort(reason);
      return sent;
    };
  };
}

export interface WireOptions {
  readonly wire: CallerWire;
  /** Where the request waits for its turn; undefined where it need not. */
  readonly limit: SendQueue | undefined;
  readonly peer: PeerConnections;
  readonly sending: Sending;
  readonly toFailure: ToFailure;
}

type WireSender = Sender<RawAnswer | null>;

/** Among others on one connection. Answered with null where the wire has ended before the peer took the request. */
export function byWire(options: WireOptions): Carrier<RawAnswer | null> {
  const { limit } = options;
  return (sender) => (limit === undefined ? sendOnWire(options, sender, ignore) : sendInTurn(limit, options, sender));
}

function sendOnWire({ wire, peer, sending, toFailure }: WireOptions, sender: WireSender, over: (how: Ending) => void): TakeBack {
  const { action, body, deadline } = sending;
  const remainingMs = deadline.remainingMs();
  const tells = remainingMs >= deadline.budgetMs * TELLING_SHARE && remainingMs >= TELLING_WAIT_MS;
  const end = (late: boolean): void => {
    if (late && tells) peer.limits.noteLate(action);
    else if (!late) peer.limits.noteAnswered(action);
    over(!late ? "answered" : tells ? "late" : "other");
  };
  const takeBack = wire.send(wireMs(remainingMs), body, {
    answered: (answer) => {
      // The peer has the same deadline, and may say first that it is over.
      end(answer.status === TIMED_OUT);
      sender.answered(answer);
    },
    failed: (error) => {
      over("other");
      sender.failed(toFailure(peer, error, true));
    },
    untaken: () => {
      over("other");
      sender.answered(null);
    },
  });
  return (reason) => {
    takeBack();
    if (reason instanceof MeshTimeoutError) end(true);
    else over("other");
    return true;
  };
}

function sendInTurn(limit: SendQueue, options: WireOptions, sender: WireSender): TakeBack {
  const { wire, peer, sending: { deadline, cancellation } } = options;
  const addedAt = now();
  const limitMs = deadline.remainingMs();
  let takeBack: TakeBack | null = null;
  const leaveQueue = limit.add((over) => {
    // Taken back in this very turn, by a listener that has not been called yet.
    if (cancellation.aborted) return false;
    const waitedMs = now() - addedAt;
    if (wire.isOpen && waitedMs <= limitMs * LONGEST_WAIT) {
      takeBack = sendOnWire(options, sender, over);
      return true;
    }
    if (wire.isOpen) sender.failed(overloaded(peer, `a request has waited ${Math.round(waitedMs)}ms for its turn, too much of its time`));
    else sender.answered(null);
    return false;
  }, limitMs);
  return (reason) => {
    leaveQueue();
    return takeBack?.(reason) ?? false;
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
