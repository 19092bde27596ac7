import assert from "node:assert/strict";
import { test } from "node:test";
import { CallLimits, LIMITED_TO, MANY_LATE } from "#mesh/mesh/call-limits.js";

function limits(): { readonly limits: CallLimits; readonly late: (count: number, action?: string) => void; readonly idle: () => number } {
  let idle = 0;
  const made = new CallLimits({ most: 1_000, onIdle: () => void idle++ });
  return {
    limits: made,
    idle: () => idle,
    late: (count, action = "v1.x.y") => {
      for (let i = 0; i < count; i++) made.noteLate(action);
    },
  };
}

test("an action is limited once far more of its calls were late than answered, and no other action is", () => {
  const { limits: made, late } = limits();
  late(MANY_LATE - 1);
  assert.equal(made.of("v1.x.y"), undefined);
  late(1);
  assert.notEqual(made.of("v1.x.y"), undefined);
  assert.equal(made.of("v1.x.z"), undefined);
});

test("an action of which more calls are answered than are late is never limited", () => {
  const { limits: made, late } = limits();
  for (let i = 0; i < 1_000; i++) {
    late(1);
    made.noteAnswered("v1.x.y");
    made.noteAnswered("v1.x.y");
    made.noteAnswered("v1.x.z");
  }
  assert.equal(made.of("v1.x.y"), undefined);
});

test("a limit goes when no call is under way, and says so", () => {
  const { limits: made, late, idle } = limits();
  late(MANY_LATE);
  const queue = made.of("v1.x.y")!;
  const overs: (() => void)[] = [];
  for (let i = 0; i < LIMITED_TO + 10; i++) queue.add((over) => (overs.push(over), true));
  assert.deepEqual([overs.length, made.waiting], [LIMITED_TO, 10]);
  late(MANY_LATE);
  assert.equal(made.of("v1.x.y"), queue, "it is the same one");
  while (overs.length > 0) overs.shift()!();
  assert.deepEqual([made.of("v1.x.y"), made.waiting, idle()], [undefined, 0, 1]);
});
