import assert from "node:assert/strict";
import { test } from "node:test";
import { Cancellation } from "#mesh/pipeline/cancellation.js";

test("aborting a parent aborts a child's signal, listeners and state with the same reason", () => {
  const parent = new Cancellation();
  const child = new Cancellation(parent);
  const heard: unknown[] = [];
  child.onAbort((reason) => heard.push(reason));
  const { signal } = child;
  const reason = new Error("drain");
  parent.abort(reason);
  assert.deepEqual(heard, [reason]);
  assert.equal(signal.aborted, true);
  assert.equal(signal.reason, reason);
  assert.equal(child.reason, reason);
});

test("a child that is looked at only after its parent was aborted is aborted", () => {
  const parent = new Cancellation();
  const child = new Cancellation(parent);
  parent.abort("late");
  assert.equal(child.aborted, true);
  assert.equal(child.signal.reason, "late");
  const heard: unknown[] = [];
  new Cancellation(parent).onAbort((reason) => heard.push(reason));
  assert.deepEqual(heard, ["late"]);
});

test("aborting a child leaves its parent alone, and a second abort changes nothing", () => {
  const parent = new Cancellation();
  const child = new Cancellation(parent);
  child.abort("first");
  child.abort("second");
  parent.abort("third");
  assert.equal(child.reason, "first");
  assert.equal(new Cancellation(parent).reason, "third");
});

test("a disposed child holds on to its parent no more, even when its signal is first read afterwards", () => {
  const links = new Set<unknown>();
  const parent = {
    aborted: false, reason: undefined, signal: new AbortController().signal,
    onAbort(listener: unknown) {
      links.add(listener);
      return () => void links.delete(listener);
    },
  };
  const child = new Cancellation(parent);
  child.onAbort(() => undefined);
  assert.equal(links.size, 1);
  child.dispose();
  assert.equal(links.size, 0);
  assert.equal(child.signal.aborted, false);
  assert.equal(links.size, 0);
});

test("one function listening twice is called twice, and each removal takes off one", () => {
  const cancellation = new Cancellation();
  let calls = 0;
  const listener = (): void => void calls++;
  const remove = cancellation.onAbort(listener);
  cancellation.onAbort(listener);
  cancellation.onAbort(listener);
  remove();
  remove();
  cancellation.abort("now");
  assert.equal(calls, 2);
});
