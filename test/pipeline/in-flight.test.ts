import assert from "node:assert/strict";
import { test } from "node:test";
import { InFlight, Run } from "#mesh/pipeline/in-flight.js";

function add(list: InFlight, ...names: string[]): Run[] {
  return names.map((name) => {
    const run = new Run(name);
    list.add(run);
    return run;
  });
}

const names = (list: InFlight, most = Infinity): string[] => list.oldest(most).map(({ name }) => name);

test("what is under way is listed oldest first, whatever the order of the ends", () => {
  const list = new InFlight();
  const [a, b, c, d] = add(list, "a", "b", "c", "d") as [Run, Run, Run, Run];
  list.remove(b);
  assert.deepEqual(names(list), ["a", "c", "d"]);
  assert.deepEqual(names(list, 2), ["a", "c"]);
  list.remove(d);
  list.remove(a);
  assert.deepEqual(names(list), ["c"]);
  add(list, "e");
  assert.deepEqual(names(list), ["c", "e"]);
  list.remove(c);
  assert.equal(list.size, 1);
});

test("the end of what is current does not wait for what begins later; idle does", async () => {
  const list = new InFlight();
  const [first] = add(list, "first") as [Run];
  const heard: string[] = [];
  const current = list.endOfCurrent().then(() => heard.push("current"));
  const idle = list.idle().then(() => heard.push("idle"));
  const [later] = add(list, "later") as [Run];
  list.remove(first);
  await current;
  assert.deepEqual(heard, ["current"]);
  list.remove(later);
  await idle;
  assert.deepEqual(heard, ["current", "idle"]);
});

test("an empty list is idle at once", async () => {
  const list = new InFlight();
  await list.idle();
  await list.endOfCurrent();
});
