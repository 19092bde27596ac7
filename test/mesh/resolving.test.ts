import assert from "node:assert/strict";
import { test } from "node:test";
import { service, type Strategy } from "@chimpbase/mesh";
import { createLogger } from "#mesh/logger.js";
import { Balancer } from "#mesh/mesh/balancing.js";
import { PeerCache } from "#mesh/mesh/peer-cache.js";
import { NodeServices } from "#mesh/mesh/services.js";
import type { Candidate } from "#mesh/mesh/directory.js";
import { callFixture, peer, TestDirectory } from "./call-fixture.js";
import { offering } from "./registry-fixture.js";

const STRATEGIES: readonly Strategy[] = ["local-first", "round-robin", "random", "cpu"];
/** Far more than memory that is further away costs, and far less than a hundred times as much to look at. */
const MOST_TIMES_SLOWER = 5;

const nameOf = (index: number): string => `v1.s${index}.act`;

/** What a node looks things up in: its peers, each with the same actions, and its own services. */
class Known {
  readonly cache = new PeerCache({
    nodeId: "self", heartbeatMs: 10_000, offlineAfterMs: 30_000, calls: true, allowed: null, log: createLogger({ level: "silent" }),
    onChange: () => undefined, onGone: () => undefined,
  });
  readonly services = new NodeServices({});
  readonly #balancer = new Balancer();

  constructor({ peers, actions }: { readonly peers: number; readonly actions: number }) {
    const names = Array.from({ length: actions }, (_, index) => nameOf(index));
    const rows = Array.from({ length: peers }, (_, index) => ({
      nodeId: `peer-${index}`, advertisedUrl: `http://peer-${index}:80`, metadataJson: "{}", servicesHash: "same", startedAtMs: 0, lastHeartbeatMs: 1_000,
    }));
    const offered = { hash: "same", json: offering(...names) };
    this.cache.applyAll({ nowMs: 1_000, rows }, new Map(rows.map(({ nodeId }) => [nodeId, offered])));
    this.services.add(this.services.prepare(names.map((_, index) => service({ name: `s${index}`, version: 1, actions: { act: () => null } }))));
    assert.deepEqual([this.cache.peers().length, this.cache.candidates(names.at(-1)!).length], [peers, peers]);
  }

  /** All that is looked up for a call, by every strategy and pinned. */
  resolve(name: string): void {
    this.services.find(name);
    this.cache.declared(name);
    for (const strategy of STRATEGIES) this.#balancer.select(strategy, name, this.cache.candidates(name), undefined);
    this.cache.candidate("peer-3", name);
  }
}

const RUNS = 41;
const RESOLVED_AT_ONCE = 1_000;

function timeOf(known: Known): number {
  const began = performance.now();
  for (let n = 0; n < RESOLVED_AT_ONCE; n++) known.resolve(nameOf(n % 10));
  return performance.now() - began;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Run in turn, so that what else the machine does slows down both. */
function timesSlower(few: Known, many: Known): number {
  const [ofFew, ofMany]: [number[], number[]] = [[], []];
  for (let run = 0; run < RUNS; run++) {
    ofFew.push(timeOf(few));
    ofMany.push(timeOf(many));
  }
  return median(ofMany) / median(ofFew);
}

for (const [what, size] of [
  ["1,000 peers", { peers: 1_000, actions: 10 }],
  ["10,000 actions of peers, and as many of its own,", { peers: 10, actions: 10_000 }],
] as const) {
  test(`to resolve a call takes a node that knows ${what} about as long as one that knows 10`, (t) => {
    const [few, many] = [new Known({ peers: 10, actions: 10 }), new Known(size)];
    const times = timesSlower(few, many);
    for (const { cache } of [few, many]) assert.ok(cache.suspect("peer-1"));
    const withSuspects = timesSlower(few, many);
    t.diagnostic(`${times} times as long; with a peer that is avoided ${withSuspects}`);
    assert.ok(times < MOST_TIMES_SLOWER, `${times}`);
    assert.ok(withSuspects < MOST_TIMES_SLOWER, `${withSuspects}`);
  });
}

test("the peers for an action are listed once, and listed anew only when somebody is avoided, or is not any more", () => {
  const { cache } = new Known({ peers: 10, actions: 2 });
  const list = cache.candidates(nameOf(0));
  assert.equal(cache.candidates(nameOf(0)), list);
  cache.suspect("peer-1");
  const without = cache.candidates(nameOf(0));
  assert.deepEqual([without.length, cache.candidates(nameOf(0)) === without], [9, true]);
});

/** A directory that counts how often a call has looked into its list of peers. */
class CountingDirectory extends TestDirectory {
  looks = 0;
  readonly #watched = new Map<string, readonly Candidate[]>();

  override candidates(action: string): readonly Candidate[] {
    const watched = this.#watched.get(action) ?? new Proxy(super.candidates(action), { get: (list, key) => (this.looks++, Reflect.get(list, key) as unknown) });
    this.#watched.set(action, watched);
    return watched;
  }
}

async function looksOf(strategy: Strategy, peers: number): Promise<number> {
  const directory = new CountingDirectory();
  directory.serve("v1.a.x", ...Array.from({ length: peers }, (_, index) => peer(`p${index}`)));
  const { call } = callFixture({ directory });
  // `cpu` looks at all of them now and then.
  await call("v1.a.x", null, { strategy });
  directory.looks = 0;
  await call("v1.a.x", null, { strategy });
  return directory.looks;
}

for (const strategy of STRATEGIES) {
  test(`a ${strategy} call looks at as few of 1,000 peers as of 10`, async () => {
    const ofFew = await looksOf(strategy, 10);
    assert.ok(ofFew > 0 && ofFew < 10, `${ofFew}`);
    assert.equal(await looksOf(strategy, 1_000), ofFew);
  });
}
