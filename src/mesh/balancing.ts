import type { Strategy } from "../contract/mesh-client.js";
import type { Candidate } from "./directory.js";

/** What one selection may choose from. Never empty. */
export interface BalancingPool {
  readonly peers: readonly Candidate[];
  /** This node, where it serves the action. */
  readonly self: Candidate | undefined;
  /** A counter per action, for strategies that take turns. */
  turn(): number;
  /** 0 to 1, 1 excluded. */
  random(): number;
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

export class Balancer {
  readonly #turns = new Map<string, number>();
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** The node to ask, or undefined where nobody serves the action. */
  select(strategy: Strategy, action: string, peers: readonly Candidate[], self: Candidate | undefined): Candidate | undefined {
    if (peers.length === 0) return self;
    return STRATEGIES[strategy]({ peers, self, turn: () => this.#turn(action), random: this.#random });
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

/** The lowest load; those that share it take turns. */
function leastLoaded(pool: BalancingPool): Candidate {
  const size = sizeOf(pool);
  let lowest = Infinity;
  let sharing = 0;
  for (let index = 0; index < size; index++) {
    const load = nodeAt(pool, index).cpuLoad;
    if (load > lowest) continue;
    sharing = load < lowest ? 1 : sharing + 1;
    lowest = load;
  }
  let skip = pool.turn() % Math.max(1, sharing);
  for (let index = 0; index < size; index++) {
    if (nodeAt(pool, index).cpuLoad === lowest && skip-- === 0) return nodeAt(pool, index);
  }
  return takeTurns(pool);
}
