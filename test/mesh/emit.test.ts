import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError, MeshNoConsumerError } from "@chimpbase/mesh";
import { emitEvent } from "#mesh/mesh/emit.js";
import { createOutbox } from "#mesh/runtime/outbox.js";
import type { Outbox, OutgoingEvent, Reach } from "#mesh/contract/messaging.js";
import type { ScopedContext } from "#mesh/contract/registration.js";
import type { Session } from "#mesh/contract/storage.js";
import { RegistryFixture } from "./registry-fixture.js";

const contextOn = (session: Session) => ({ scope: { requestId: "r1", meta: { tenant: "t" }, session } }) as unknown as ScopedContext;

class Noted implements Outbox {
  readonly sent: { event: OutgoingEvent; reach: Reach }[] = [];
  async emit(event: OutgoingEvent, reach: Reach): Promise<number> {
    this.sent.push({ event, reach });
    return 1;
  }
  enqueue(): Promise<string> {
    throw new Error("no job");
  }
}

test("the options choose the reach, and the event carries the context's request and meta", async () => {
  const outbox = new Noted();
  const ctx = contextOn({ joinTransaction: async () => null } as unknown as Session);
  await emitEvent(outbox, ctx, "user.deleted", { id: 1 });
  await emitEvent(outbox, ctx, "user.deleted", 2, { balanced: true });
  await emitEvent(outbox, ctx, "__own.event", 3, { balanced: false });
  assert.deepEqual(outbox.sent, [
    { event: { name: "user.deleted", payload: { id: 1 }, requestId: "r1", meta: { tenant: "t" } }, reach: "all" },
    { event: { name: "user.deleted", payload: 2, requestId: "r1", meta: { tenant: "t" } }, reach: "balanced" },
    { event: { name: "__own.event", payload: 3, requestId: "r1", meta: { tenant: "t" } }, reach: "broadcast" },
  ]);
});

test("misspelt options and a reach that is no boolean are refused, and nothing is sent", async () => {
  const outbox = new Noted();
  const ctx = contextOn({ joinTransaction: async () => null } as unknown as Session);
  await assert.rejects(emitEvent(outbox, ctx, "a", 1, { balance: true } as never), /unknown emit option "balance"; did you mean "balanced"\?/);
  await assert.rejects(emitEvent(outbox, ctx, "a", 1, { balanced: "yes" as never }), /emit option balanced must be true or false, got yes/);
  assert.deepEqual(outbox.sent, []);
});

test("illegal and reserved event names are refused, and nothing is sent", async () => {
  const outbox = new Noted();
  const ctx = contextOn({ joinTransaction: async () => null } as unknown as Session);
  for (const name of ["", "a b", "order.*", ".a", "a..b", "1a", "x".repeat(129), 5 as never, "__chimpbase.mesh.info.leave"]) {
    await assert.rejects(emitEvent(outbox, ctx, name, {}), MeshConfigurationError);
  }
  assert.equal(outbox.sent.length, 0);
});

test("a balanced emit that no group has ever asked for is an error; any other emit is none", async () => {
  await using fixture = await RegistryFixture.open();
  const outbox = createOutbox({ storage: fixture.storage, nodeId: "self", log: fixture.log });
  const ctx = contextOn(fixture.storage);
  await emitEvent(outbox, ctx, "nobody.listens", {});
  await assert.rejects(emitEvent(outbox, ctx, "nobody.listens", {}, { balanced: true }), (error: Error) => {
    assert.ok(error instanceof MeshNoConsumerError);
    assert.match(error.message, /nobody\.listens/);
    return true;
  });
  await outbox.close();
});

test("an emit in a transaction commits, or vanishes, with it", async () => {
  await using fixture = await RegistryFixture.open();
  const outbox = createOutbox({ storage: fixture.storage, nodeId: "self", log: fixture.log });
  const count = async () => Number((await fixture.storage.query<{ n: string }>("SELECT count(*) AS n FROM _chimpbase_mesh_events"))[0]!.n);
  await fixture.storage.transaction(async (tx) => emitEvent(outbox, contextOn(tx), "user.deleted", {}));
  assert.equal(await count(), 1);
  const failing = fixture.storage.transaction(async (tx) => {
    await emitEvent(outbox, contextOn(tx), "user.deleted", {});
    throw new Error("no");
  });
  await assert.rejects(failing, /no/);
  assert.equal(await count(), 1);
  await outbox.close();
});
