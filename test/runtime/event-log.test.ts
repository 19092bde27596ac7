import assert from "node:assert/strict";
import { test } from "node:test";
import type { Storage } from "#mesh/contract/storage.js";
import { EventLog, type Interest, type LogPosition } from "#mesh/runtime/event-log.js";

const START: LogPosition = { nextXid: "100", open: [], takenAtMs: 1, completeAtMs: 1 };

test("a subscription that comes while a read waits for its turn misses nothing that it finds", async () => {
  let interest: Interest = { names: ["a"], regex: null };
  const asked: unknown[][] = [];
  const answers: ((rows: unknown[]) => void)[] = [];
  const storage = {
    table: (name: string) => name,
    query: (_sql: string, params: unknown[]) => {
      asked.push(params.slice(-2));
      return new Promise((resolve) => answers.push(resolve));
    },
  } as unknown as Storage;
  const log = new EventLog(storage, () => interest);
  const row = (id: string, wanted: boolean, events: string | null): object => ({
    snapshot: "110:110:", now_ms: 5, id, xid: "101", node_id: "n", emitted_at_ms: 1, bytes: 2, wanted, events,
  });

  const read = log.read(START, null, false);
  interest = { names: ["a", "b"], regex: null };
  answers.shift()!([row("1", false, null)]);
  await new Promise(setImmediate);
  assert.deepEqual(asked, [[["a"], null], [[], ""]]);
  answers.shift()!([row("1", true, "[]")]);
  assert.deepEqual((await read).rows.map(({ id }) => id), ["1"]);

  const quiet = log.read(START, null, false);
  answers.shift()!([row("1", false, null), row("2", true, "[]")]);
  assert.deepEqual((await quiet).rows.map(({ id }) => id), ["2"]);
  assert.deepEqual(asked.slice(2), [[["a", "b"], null]]);
});
