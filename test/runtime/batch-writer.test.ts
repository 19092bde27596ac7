import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BatchWriter } from "#mesh/runtime/batch-writer.js";
import { memoryLog } from "../support/log.js";
import { until } from "../support/wait.js";
import { Gate } from "./worker-nodes.js";

describe("batch writer", () => {
  it("writes what comes while a batch is under way as one batch, at most 500 items", async () => {
    const gate = new Gate();
    const sizes: number[] = [];
    const writer = new BatchWriter<number>("completion", memoryLog().log, async (items) => {
      sizes.push(items.length);
      if (sizes.length === 1) await gate.pass();
    });
    writer.add(0);
    await until(() => gate.waiting === 1);
    for (let index = 0; index < 700; index++) writer.add(index);
    gate.open();
    await writer.idle();
    assert.deepEqual(sizes, [1, 500, 200]);
  });

  it("repeats a batch until it is written, says that it does, and logs the trouble once", async () => {
    const { log, lines } = memoryLog();
    const tries: [number, boolean][] = [];
    const writer = new BatchWriter<string>("completion", log, async (items, repeated) => {
      tries.push([items.length, repeated]);
      if (tries.length < 3) throw new Error("no connection");
    });
    writer.add("a");
    writer.add("b");
    await writer.idle();
    assert.deepEqual(tries, [[2, false], [2, true], [2, true]]);
    assert.deepEqual(lines.map((line) => line.msg), ["completion of jobs failed, will be repeated"]);
  });

  it("gives up what cannot be written within the limit of its close, and says so", async () => {
    const { log, lines } = memoryLog();
    const writer = new BatchWriter<string>("completion", log, async () => { throw new Error("no connection"); });
    writer.add("a");
    await writer.close(50);
    assert.match(lines.at(-1)!.msg, /given up/);
  });
});
