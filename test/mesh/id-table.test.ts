import assert from "node:assert/strict";
import { test } from "node:test";
import { IdTable } from "#mesh/mesh/id-table.js";

interface Value {
  readonly n: number;
}

const value = (n: number): Value => ({ n });

function filled(upTo: number): IdTable<Value> {
  const table = new IdTable<Value>();
  for (let id = 1; id <= upTo; id++) table.add(id, value(id));
  return table;
}

test("a value is taken out once, by its id", () => {
  const table = filled(3);
  assert.deepEqual(table.take(2), value(2));
  assert.equal(table.take(2), undefined);
  assert.equal(table.take(4), undefined);
  assert.equal(table.size, 2);
});

test("an id that was never added finds nothing in the slot of another one", () => {
  const table = filled(3);
  assert.equal(table.take(3 + 1024), undefined);
  assert.deepEqual(table.take(3), value(3));
});

test("values stay reachable when thousands of newer ids have come and gone", () => {
  const table = new IdTable<Value>();
  const kept = new Set([1, 5, 700, 3_000]);
  for (let id = 1; id <= 20_000; id++) {
    table.add(id, value(id));
    if (!kept.has(id)) assert.deepEqual(table.take(id), value(id));
  }
  assert.equal(table.size, kept.size);
  for (const id of kept) assert.deepEqual(table.take(id), value(id));
  assert.equal(table.size, 0);
});

test("more values than there are slots are all kept", () => {
  const table = filled(5_000);
  assert.equal(table.size, 5_000);
  for (let id = 5_000; id >= 1; id--) assert.deepEqual(table.take(id), value(id));
});

test("ids beyond 32 bits keep their own values", () => {
  const table = new IdTable<Value>();
  const ids = [2 ** 32 + 7, 2 ** 40 + 7, 2 ** 49 + 9];
  for (const id of ids) table.add(id, value(id));
  for (const id of ids) assert.deepEqual(table.take(id), value(id));
});

test("all are taken out in the order of their ids, and none is left", () => {
  const table = filled(3_000);
  for (let id = 2; id <= 3_000; id += 2) table.take(id);
  const all = table.takeAll();
  assert.deepEqual(all.map(([id]) => id), Array.from({ length: 1_500 }, (_, i) => 2 * i + 1));
  assert.ok(all.every(([id, { n }]) => id === n));
  assert.equal(table.size, 0);
  assert.deepEqual(table.takeAll(), []);
  assert.equal(table.take(1), undefined);
});
