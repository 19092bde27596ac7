import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fifo } from "#mesh/runtime/fifo.js";

test("whatever the order of pushes and shifts, what goes in first comes out first", () => {
  fc.assert(fc.property(fc.array(fc.boolean(), { maxLength: 200 }), (pushes) => {
    const fifo = new Fifo<number>();
    const model: number[] = [];
    pushes.forEach((push, index) => {
      if (push) fifo.push(index);
      if (push) model.push(index);
      else assert.equal(fifo.shift(), model.shift());
    });
  }));
});
