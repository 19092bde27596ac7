import { now } from "../pipeline/deadline.js";
import type { Strategy } from "../contract/mesh-client.js";
import type { Candidate } from "./directory.js";

/** What one selection may choose from. Never empty. */
export interface BalancingPool {
  readonly peers: readonly Candidate[];
  /** This node, where it serves the action. */
  readonly self: Candidate | undefined;
  /** A counter per action, for strategies that take turns. */
  turn(): number;
  /** Those of the peers whose load is the lowest. */
  idlest(): Idlest;
  /** 0 to 1, 1 excluded. */
  random(): number;
}

interface Idlest {
  readonly load: number;
  /** Empty where no load is a number. */
  readonly peers: readonly Candidate[];
  /** For how long that is taken for true, on the clock of `now()`. */
  readonly until: number;
}

type SelectNode = (pool: BalancingPool) => Candidate;

const STRATEGIES: Readonly<Record<Strategy, SelectNode>> = {
  "local-first": (pool) => pool.self ?? takeTurns(pool),
  "round-robin": takeTurns,
  random: (pool) => nodeAt(pool, Math.floor(pool.random() * sizeOf(pool))),
  cpu: leastLoaded,
};

export const STRATEGY_NAMES = Object.keys(STRATEGIES) as readonly Strategy[];

export const isStrategy = (name: unknown): name is Strategy => typeof name === "string" && Object.hasOwn(STRATEGIES, name);

// Counters are kept for names that somebody serves; a cluster that has had more than this starts counting anew.
const MOST_COUNTERS = 10_000;
/** Loads come with heartbeats: to look at every peer at each call would find the same, and cost more the more there are. */
const IDLEST_FOR_MS = 100;

export class Balancer {
  readonly #turns = new Map<string, number>();
  /** By list of peers, which are replaced and never changed. */
  readonly #idlest = new WeakMap<readonly Candidate[], Idlest>();
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** The node to ask, or undefined where nobody serves the action. */
  select(strategy: Strategy, action: string, peers: readonly Candidate[], self: Candidate | undefined): Candidate | undefined {
    if (peers.length === 0) return self;
    return STRATEGIES[strategy]({ peers, self, turn: () => this.#turn(action), idlest: () => this.#idlestOf(peers), random: this.#random });
  }

  #idlestOf(peers: readonly Candidate[]): Idlest {
    const known = this.#idlest.get(peers);
    if (known !== undefined && now() < known.until) return known;
    const idlest = findIdlest(peers);
    this.#idlest.set(peers, idlest);
    return idlest;
  }

  /** Starts anywhere, so that nodes that boot together do not all begin with the same peer. */
  #turn(action: string): number {
    const turn = this.#turns.get(action) ?? Math.floor(this.#random() * 1_000_000);
    if (this.#turns.size >= MOST_COUNTERS) this.#turns.clear();
    this.#turns.set(action, (turn + 1) % Number.MAX_SAFE_INTEGER);
    return turn;
  }
}

const sizeOf = (pool: BalancingPool): number => pool.peers.length + (pool.self === undefined ? 0 : 1);

/** Peers in their order, then this node. */
function nodeAt(pool: BalancingPool, index: number): Candidate {
  return (pool.peers[index] ?? pool.self ?? pool.peers[0])!;
}

function takeTurns(pool: BalancingPool): Candidate {
  return nodeAt(pool, pool.turn() % sizeOf(pool));
}

/** The lowest load, this node's own included; those that share it take turns. */
function leastLoaded(pool: BalancingPool): Candidate {
  const { load, peers } = pool.idlest();
  const { self } = pool;
  if (self !== undefined && self.cpuLoad < load) return self;
  if (peers.length === 0) return takeTurns(pool);
  return takeTurns({ ...pool, peers, self: self?.cpuLoad === load ? self : undefined });
}

function findIdlest(among: readonly Candidate[]): Idlest {
  let load = Infinity;
  let peers: Candidate[] = [];
  for (const peer of among) {
    if (peer.cpuLoad < load) [load, peers] = [peer.cpuLoad, []];
    if (peer.cpuLoad === load) peers.push(peer);
  }
  return { load, peers, until: now() + IDLEST_FOR_MS };
}
