import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Strategy } from "@chimpbase/mesh";
import { Balancer } from "#mesh/mesh/balancing.js";
import type { Candidate } from "#mesh/mesh/directory.js";
import { until } from "../support/wait.js";
import { callFixture, peer, TestActions, TestDirectory } from "./call-fixture.js";

const peers = [peer("p1"), peer("p2"), peer("p3")];
const self = peer("self");

function spread(strategy: Strategy, rounds: number, among: readonly Candidate[], own?: Candidate, balancer = new Balancer()): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let n = 0; n < rounds; n++) {
    const { nodeId } = balancer.select(strategy, "v1.a.x", among, own)!;
    counts[nodeId] = (counts[nodeId] ?? 0) + 1;
  }
  return counts;
}

describe("local-first", () => {
  test("prefers this node", () => assert.deepEqual(spread("local-first", 6, peers, self), { self: 6 }));
  test("spreads over the peers where this node does not serve", () => assert.deepEqual(spread("local-first", 6, peers), { p1: 2, p2: 2, p3: 2 }));
});

describe("round-robin", () => {
  test("takes turns, this node included", () => assert.deepEqual(spread("round-robin", 8, peers, self), { p1: 2, p2: 2, p3: 2, self: 2 }));

  test("counts each action for itself", () => {
    const balancer = new Balancer(() => 0);
    const pick = (action: string) => balancer.select("round-robin", action, peers.slice(0, 2), undefined)!.nodeId;
    assert.deepEqual([pick("a"), pick("b"), pick("a"), pick("b")], ["p1", "p1", "p2", "p2"]);
  });

  test("does not begin with the same peer on every node", () => {
    const firsts = new Set(Array.from({ length: 64 }, () => new Balancer().select("round-robin", "a", peers, undefined)!.nodeId));
    assert.ok(firsts.size > 1);
  });
});

describe("random", () => {
  test("reaches everybody, this node included", () => assert.deepEqual(Object.keys(spread("random", 500, peers, self)).sort(), ["p1", "p2", "p3", "self"]));
  test("stays in range at the edges", () => {
    for (const random of [0, 0.999999]) assert.ok(new Balancer(() => random).select("random", "a", peers, self));
  });
});

describe("cpu", () => {
  const loaded = (id: string, cpuLoad: number) => peer(id, { cpuLoad });
  test("takes the lowest load", () => assert.deepEqual(spread("cpu", 4, [loaded("p1", 0.9), loaded("p2", 0.2)]), { p2: 4 }));
  test("counts this node's own", () => assert.deepEqual(spread("cpu", 4, [loaded("p1", 0.5)], loaded("self", 0.1)), { self: 4 }));
  test("takes turns among those that share the lowest", () => {
    assert.deepEqual(spread("cpu", 6, [loaded("p1", 0.2), loaded("p2", 0.9), loaded("p3", 0.2)], loaded("self", 0.2)), { p1: 2, p3: 2, self: 2 });
  });
  test("looks at the loads again and again", async () => {
    const [busier, idler] = [{ ...peer("p1"), cpuLoad: 0.2 }, { ...peer("p2"), cpuLoad: 0.5 }];
    const [among, balancer] = [[busier, idler], new Balancer()];
    const pick = (): string => balancer.select("cpu", "a", among, undefined)!.nodeId;
    assert.equal(pick(), "p1");
    busier.cpuLoad = 0.9;
    await until(() => pick() === "p2");
  });
  test("bears with loads that are no numbers", () => assert.ok(new Balancer().select("cpu", "a", [loaded("p1", NaN), loaded("p2", NaN)], undefined)));
});

test("nobody to choose from is undefined, and this node alone is this node", () => {
  for (const strategy of ["local-first", "round-robin", "random", "cpu"] as const) {
    assert.equal(new Balancer().select(strategy, "a", [], undefined), undefined);
    assert.equal(new Balancer().select(strategy, "a", [], self), self);
  }
});

test("the option strategy rules over the default, and this node's load is asked at the call", async () => {
  let load = 0.9;
  const { call } = callFixture({
    actions: new TestActions().add("v1.s.x", () => "here"),
    directory: new TestDirectory().serve("v1.s.x", peer("p1", { cpuLoad: 0.5 })),
    answer: () => "there",
    cpuLoad: () => load,
  });
  assert.equal(await call("v1.s.x"), "here");
  assert.equal(await call("v1.s.x", {}, { strategy: "cpu" }), "there");
  load = 0.1;
  assert.equal(await call("v1.s.x", {}, { strategy: "cpu" }), "here");
  const turns = await Promise.all([1, 2, 3, 4].map(() => call("v1.s.x", {}, { strategy: "round-robin" })));
  assert.deepEqual(turns.sort(), ["here", "here", "there", "there"]);
});
