import assert from "node:assert/strict";
import { test } from "node:test";
import { addNews, decodeWake, encodeWake } from "#mesh/runtime/wake.js";

const nodeId = "00000000-0000-4000-8000-000000000000";

test("a small wake is one payload, and reads as it was written", () => {
  const wake = { nodeId, events: ["order.paid"], lanes: ["q:mail", "g:billing\u001forder.*"], delayed: [["q:later", 250]] } as const;
  const payloads = encodeWake(wake);
  assert.equal(payloads.length, 1);
  assert.deepEqual(decodeWake(payloads[0]!), wake);
});

test("nothing to tell is no payload", () => {
  assert.deepEqual(encodeWake({ nodeId, events: "none", lanes: [], delayed: [] }), []);
});

test("names of events that would take too much of a payload are not told one by one", () => {
  const events = Array.from({ length: 20 }, (_, index) => `${index}.${"ü".repeat(60)}`);
  assert.equal(decodeWake(encodeWake({ nodeId, events, lanes: [], delayed: [] })[0]!)!.events, "any");
});

test("news add up, each name once, up to a number from which on they are anything", () => {
  assert.deepEqual(addNews("none", ["a"]), ["a"]);
  assert.deepEqual(addNews(["a", "b"], ["b", "c"]), ["a", "b", "c"]);
  assert.deepEqual([addNews(["a"], "none"), addNews(["a"], "any"), addNews("any", "none"), addNews("none", "none")], [["a"], "any", "any", "none"]);
  const many = Array.from({ length: 40 }, (_, index) => `e${index}`);
  assert.equal(addNews(many, many.map((name) => `${name}.again`)), "any");
});

test("many lanes take several payloads that Postgres accepts, none lost, the events told once", () => {
  const lanes = Array.from({ length: 1_000 }, (_, index) => `q:ünï"\\${index}`);
  const delayed = lanes.map((lane, index) => [lane, index] as const);
  const payloads = encodeWake({ nodeId, events: "any", lanes, delayed });
  assert.ok(payloads.length > 1 && payloads.every((payload) => Buffer.byteLength(payload) < 8_000));
  const wakes = payloads.map((payload) => decodeWake(payload)!);
  assert.deepEqual(wakes.flatMap((wake) => wake.lanes), lanes);
  assert.deepEqual(wakes.flatMap((wake) => wake.delayed), delayed);
  assert.deepEqual(wakes.filter(({ events }) => events === "any").length, 1);
});

test("a lane that no payload can hold is left out, with nothing else", () => {
  const lanes = ["a", "x".repeat(9_000), "b"];
  assert.deepEqual(encodeWake({ nodeId, events: "none", lanes, delayed: [] }).map((payload) => decodeWake(payload)!.lanes), [["a", "b"]]);
});

test("what is no wake is told from one that is", () => {
  const wake = { nodeId, events: "none", lanes: ["a"], delayed: [["a", 1]] };
  assert.notEqual(decodeWake(JSON.stringify(wake)), null);
  const forged = [{ ...wake, lanes: [1] }, { ...wake, events: true }, { ...wake, events: "order.paid" }, { ...wake, events: [1] }, { ...wake, events: Array(51).fill("e") }, { ...wake, events: ["e".repeat(256)] }, { ...wake, delayed: [["a"]] }, { ...wake, delayed: [["a", -1]] }, { ...wake, delayed: [["a", "1"]] }, { ...wake, delayed: {} }, null, 1, "x"];
  for (const each of forged) assert.equal(decodeWake(JSON.stringify(each)), null, JSON.stringify(each));
});
