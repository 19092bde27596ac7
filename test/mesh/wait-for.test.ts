import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshCancelledError, MeshConfigurationError, MeshTimeoutError } from "@chimpbase/mesh";
import { waitFor } from "#mesh/mesh/wait-for.js";
import { Cancellation } from "#mesh/pipeline/cancellation.js";
import { Deadline } from "#mesh/pipeline/deadline.js";

class Reach {
  readonly closing = new Cancellation();
  readonly names = new Set<string>();
  readonly listeners = new Set<() => void>();
  serves = (name: string) => this.names.has(name);
  onChange(listener: () => void) {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  add(name: string) {
    this.names.add(name);
    for (const listener of this.listeners) listener();
  }
}
const waiter = () => ({ deadline: null, cancellation: new Cancellation() });

test("it resolves at once where all can be called", async () => {
  const reach = new Reach();
  reach.add("v1.users");
  await waitFor(["v1.users"], reach, {}, waiter());
});

test("it resolves when the last missing name appears, and listens no longer", async () => {
  const reach = new Reach();
  const done = waitFor(["v1.users", "v2.orders.pay"], reach, {}, waiter());
  reach.add("v1.users");
  assert.equal(reach.listeners.size, 1);
  reach.add("v2.orders.pay");
  await done;
  assert.equal(reach.listeners.size, 0);
});

test("past the time it names what is missing, and only that", async () => {
  const reach = new Reach();
  reach.add("v1.users");
  const error = await waitFor(["v1.users", "v1.orders"], reach, { timeoutMs: 20 }, waiter()).catch((reason: unknown) => reason);
  assert.ok(error instanceof MeshTimeoutError);
  assert.match(error.message, /20ms.*v1\.orders/);
  assert.deepEqual(error.data, { missing: ["v1.orders"] });
  assert.equal(reach.listeners.size, 0);
});

test("it waits no longer than the run that waits", async () => {
  const short = { deadline: new Deadline(20), cancellation: new Cancellation() };
  await assert.rejects(waitFor(["v1.users"], new Reach(), {}, short), MeshTimeoutError);
});

test("a signal, the end of the run, and the end of the mesh cancel it", async () => {
  const already = AbortSignal.abort();
  await assert.rejects(waitFor(["v1.users"], new Reach(), { signal: already }, waiter()), MeshCancelledError);
  const controller = new AbortController();
  const bySignal = waitFor(["v1.users"], new Reach(), { signal: controller.signal }, waiter());
  controller.abort();
  await assert.rejects(bySignal, MeshCancelledError);
  const run = waiter();
  const byRun = waitFor(["v1.users"], new Reach(), {}, run);
  run.cancellation.abort("over");
  await assert.rejects(byRun, MeshCancelledError);
  const reach = new Reach();
  const byMesh = waitFor(["v1.users"], reach, {}, waiter());
  reach.closing.abort("stopping");
  await assert.rejects(byMesh, MeshCancelledError);
});

test("a name without a version is a mistake, not something to wait for", async () => {
  for (const name of ["users", "v1", "", 5 as never]) await assert.rejects(waitFor([name], new Reach(), {}, waiter()), MeshConfigurationError);
  await assert.rejects(waitFor(["v1.users"], new Reach(), { timeoutMs: -1 }, waiter()), MeshConfigurationError);
  await assert.rejects(waitFor(["v1.users"], new Reach(), { timeout: 5 } as never, waiter()), /"timeout"; did you mean "timeoutMs"\?/);
});
