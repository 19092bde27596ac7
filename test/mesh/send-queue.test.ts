import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LEAST, SendQueue, type Ending } from "#mesh/mesh/send-queue.js";

const nothing = (): void => undefined;

/** Requests that take `ms` each; the number is how many have begun. */
function slow(ms: number): { readonly begin: (over: () => void) => boolean; begun: number } {
  const work = { begun: 0, begin: (over: () => void) => (work.begun++, void sleep(ms).then(over), true) };
  return work;
}

describe("the queue of requests to a peer", () => {
  test("begins so many at once, and the others in order as these end", () => {
    const begun: number[] = [];
    const overs: (() => void)[] = [];
    const queue = new SendQueue({ atOnce: 2, onIdle: nothing });
    for (let n = 1; n <= 4; n++) queue.add((over) => (begun.push(n), overs.push(over), true));
    assert.deepEqual(begun, [1, 2]);
    overs[1]!();
    assert.deepEqual(begun, [1, 2, 3]);
    overs[0]!();
    assert.deepEqual([begun, queue.size], [[1, 2, 3, 4], 2]);
  });

  test("never begins what was taken back, and passes over what is not worth it any more", () => {
    const begun: string[] = [];
    let end = nothing;
    const queue = new SendQueue({ atOnce: 1, onIdle: nothing });
    queue.add((over) => ((end = over), true));
    const takeBack = queue.add(() => (begun.push("taken back"), true));
    queue.add(() => (begun.push("expired"), false));
    queue.add(() => (begun.push("last"), true));
    takeBack();
    end();
    assert.deepEqual([begun, queue.size], [["expired", "last"], 1]);
  });

  test("goes on where a request is over before it has begun in full", () => {
    const queue = new SendQueue({ atOnce: 1, onIdle: nothing });
    let begun = 0;
    for (let n = 0; n < 10_000; n++) queue.add((over) => (begun++, over(), true));
    assert.deepEqual([begun, queue.size], [10_000, 0]);
  });

  test("tells when the last one has gone, in whichever way", () => {
    let idle = 0;
    let end = nothing;
    const queue = new SendQueue({ atOnce: 1, onIdle: () => void idle++ });
    queue.add((over) => ((end = over), true));
    const takeBack = queue.add(() => true);
    takeBack();
    assert.equal(idle, 0);
    end();
    queue.add(() => false);
    assert.equal(idle, 2);
  });

  test("lets more be under way where those that wait see others answered soon, up to the most", () => {
    const overs: ((how?: Ending) => void)[] = [];
    const queue = new SendQueue({ atOnce: 10, most: 30, onIdle: nothing });
    for (let n = 0; n < 100; n++) queue.add((over) => (overs.push(over), true), 60_000);
    assert.equal(overs.length, 10);
    overs.shift()!("answered");
    assert.equal(overs.length, 11, "one for the one that has ended, and one more");
    while (queue.size > 40) overs.shift()!("answered");
    assert.equal(overs.length, 30);
  });

  test("stays at what it lets be under way where nobody waits", () => {
    const queue = new SendQueue({ atOnce: 10, most: 30, onIdle: nothing });
    let begun = 0;
    for (let n = 0; n < 50; n++) queue.add((over) => (over("answered"), true), 60_000);
    for (let n = 0; n < 50; n++) queue.add(() => (begun++, true), 60_000);
    assert.equal(begun, 10);
  });

  test("lets fewer be under way where no answers come in time, and never less than eight", () => {
    const overs: ((how?: Ending) => void)[] = [];
    const queue = new SendQueue({ atOnce: 20, most: 4_096, onIdle: nothing });
    for (let n = 0; n < 200; n++) queue.add((over) => (overs.push(over), true), 60_000);
    for (let n = 0; n < 5; n++) overs.shift()!("late");
    assert.equal(overs.length, 15);
    for (let n = 0; n < 50; n++) overs.shift()!("late");
    assert.equal(overs.length, LEAST);
    for (let n = 0; n < 50; n++) overs.shift()!("other");
    assert.equal(overs.length, LEAST, "what ends otherwise says nothing");
  });

  test("comes back with answers that are slow and in time, if slowly", () => {
    const overs: ((how?: Ending) => void)[] = [];
    const queue = new SendQueue({ atOnce: 10, most: 30, onIdle: nothing });
    const none = 0;
    for (let n = 0; n < 200; n++) queue.add((over) => (overs.push(over), true), none);
    for (let n = 0; n < 20; n++) overs.shift()!("late");
    assert.equal(overs.length, LEAST);
    for (let n = 0; n < 41; n++) overs.shift()!("answered");
    assert.equal(overs.length, LEAST + 4);
  });

  test("without a most, lets as many be under way as it began with", () => {
    const overs: ((how?: Ending) => void)[] = [];
    const queue = new SendQueue({ atOnce: 10, onIdle: nothing });
    for (let n = 0; n < 100; n++) queue.add((over) => (overs.push(over), true), 60_000);
    for (let n = 0; n < 20; n++) overs.shift()!(n % 2 === 0 ? "answered" : "late");
    assert.equal(overs.length, 10);
  });

  test("expects no wait while there is room, and of slow requests no more than they take", async () => {
    const atOnce = 64;
    const ms = 50;
    const queue = new SendQueue({ atOnce, onIdle: nothing });
    const requests = slow(ms);
    for (let n = 0; n < atOnce; n++) queue.add(requests.begin);
    assert.equal(queue.expectedWaitMs, 0);
    let highest = 0;
    for (let round = 0; round < 8; round++) {
      for (let n = 0; n < atOnce / 4; n++) queue.add(requests.begin);
      highest = Math.max(highest, queue.expectedWaitMs / ((queue.size - atOnce) / atOnce || Infinity));
      await sleep(ms / 4);
    }
    while (queue.size > 0) await sleep(5);
    assert.equal(requests.begun, 3 * atOnce);
    assert.ok(highest <= 20 * ms, `one round of requests was expected to take ${highest} ms`);
  });
});
