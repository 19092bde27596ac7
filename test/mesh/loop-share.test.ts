import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { LoopShare } from "#mesh/mesh/loop-share.js";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { until } from "../support/wait.js";

function burn(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

/** Work that is no call and takes `ms` of each turn of the event loop. Returns its end. */
function busyLoop(ms: number): () => void {
  let on = true;
  const turn = (): void => {
    burn(ms);
    if (on) setImmediate(turn);
  };
  setImmediate(turn);
  return () => void (on = false);
}

describe("the share of handlers in the event loop", () => {
  test("lets them begin at once while nothing keeps the loop busy", () => assert.equal(new LoopShare().isFree, true));

  test("lets them begin one after another however long other work keeps each turn of the loop", async (t) => {
    const share = new LoopShare();
    const stop = busyLoop(12);
    t.after(stop);
    await until(() => !share.isFree);
    let begun = 0;
    for (let n = 0; n < 20; n++) void share.turn(new Cancellation()).then(() => begun++);
    await until(() => begun === 20, { message: "all handlers have begun while the loop is busy" });
  });

  test("leaves turns of the loop to all else between handlers that keep it busy", async () => {
    const share = new LoopShare();
    let turns = 0;
    let counting = true;
    const count = (): void => {
      turns++;
      if (counting) setImmediate(count);
    };
    setImmediate(count);
    await Promise.all(Array.from({ length: 10 }, async () => {
      if (!share.isFree) await share.turn(new Cancellation());
      burn(12);
    }));
    counting = false;
    assert.ok(turns >= 10, `there were ${turns} turns for ten handlers`);
  });

  test("knows from the pace of those before how long the next one will wait", async (t) => {
    const share = new LoopShare();
    t.after(busyLoop(12));
    assert.equal(share.expectedWaitMs, 0);
    await until(() => !share.isFree);
    const begin = async (): Promise<void> => {
      await share.turn(new Cancellation());
      burn(10);
    };
    const waiting = Array.from({ length: 12 }, begin);
    await Promise.all(waiting.slice(0, 6));
    assert.ok(share.expectedWaitMs >= 5 * 10 && share.expectedWaitMs < 12 * 60, `${share.expectedWaitMs} ms`);
    await Promise.all(waiting);
    assert.equal(share.expectedWaitMs, 0);
  });

  test("expects nothing of a node that was held up once, nor of one that gets through all that wait in one share", async (t) => {
    const share = new LoopShare();
    t.after(busyLoop(12));
    await until(() => !share.isFree);
    const first = [20, 0, 0].map(async (ms) => {
      await share.turn(new Cancellation());
      burn(ms);
    });
    await first[0];
    const others = Array.from({ length: 200 }, () => share.turn(new Cancellation()));
    assert.equal(share.expectedWaitMs, 0);
    await Promise.all([...first, ...others]);
    await Promise.all([1, 2, 3, 4].map(() => share.turn(new Cancellation())));
    assert.equal(share.expectedWaitMs, 0);
  });

  test("lets go of one whose caller has gone, and of nobody else", async (t) => {
    const share = new LoopShare();
    t.after(busyLoop(12));
    await until(() => !share.isFree);
    const cancellation = new Cancellation();
    const gone = share.turn(cancellation);
    const other = share.turn(new Cancellation());
    cancellation.abort(new Error("gone"));
    await gone;
    await other;
  });

  test("holds the process no longer than it takes to find nobody waiting", async () => {
    const share = new LoopShare();
    share.turnBeganAt();
    burn(15);
    await until(() => share.isFree);
    assert.equal(share.isFree, true);
  });
});
