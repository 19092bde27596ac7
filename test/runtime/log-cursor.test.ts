import assert from "node:assert/strict";
import { test } from "node:test";
import type { EventLog, LogPage, LogPosition, LogRow } from "#mesh/runtime/event-log.js";
import { LogCursor } from "#mesh/runtime/log-cursor.js";

const at = (nextXid: string, takenAtMs: number): LogPosition => ({ nextXid, open: [], takenAtMs, completeAtMs: takenAtMs });
const row = (id: string): LogRow => ({ id, nodeId: "n", emittedAtMs: 0, bytes: 2, events: "[]" });

test("a read that has waited through a crash without looking for what that hides does not count", async () => {
  const asked: { from: string; suspectCrash: boolean }[] = [];
  const answers: ((page: LogPage) => void)[] = [];
  const eventLog = {
    read: (from: LogPosition, _until: LogPosition | null, suspectCrash: boolean) => {
      asked.push({ from: from.nextXid, suspectCrash });
      return new Promise<LogPage>((resolve) => answers.push(resolve));
    },
  } as unknown as EventLog;
  const cursor = new LogCursor(eventLog, 600_000, at("100", 1));
  const taken: string[] = [];
  const take = (each: LogRow): boolean => Boolean(taken.push(each.id));

  const through = cursor.read(null);
  cursor.suspectCrash = true;
  // Transaction 95 was given out again after the crash, and this read, which asks for those from 100 on, does not see it.
  answers.shift()!({ rows: [row("2")], grown: true, next: at("110", 50), more: false, nowMs: 50 });
  assert.equal(await through, true, "there may be more");
  assert.ok(cursor.empty);

  const again = cursor.read(null);
  answers.shift()!({ rows: [row("1"), row("2")], grown: true, next: at("110", 60), more: false, nowMs: 60 });
  assert.equal(await again, false);
  await cursor.handOver(take);
  assert.deepEqual(taken, ["1", "2"]);
  assert.deepEqual(asked, [{ from: "100", suspectCrash: false }, { from: "100", suspectCrash: true }]);

  const later = cursor.read(null);
  answers.shift()!({ rows: [], grown: false, next: at("111", 70), more: false, nowMs: 70 });
  await later;
  assert.deepEqual(asked.at(-1), { from: "110", suspectCrash: false });
});
