import assert from "node:assert/strict";
import { inspect } from "node:util";
import { describe, test } from "node:test";
import { Action, MeshActionNotFoundError, Service, ServiceDefinitionError, service, type Context, type MeshClient } from "@chimpbase/mesh";
import { serviceClient } from "#mesh/mesh/service-client.js";

@Service({ name: "users", version: 2 })
class UsersService {
  @Action() create(_ctx: Context, args: { email: string }): { id: number } { return { id: args.email.length }; }
  @Action("lookup") find(_ctx: Context): string { return "x"; }
  helper(): void {}
}

function recording() {
  const calls: unknown[][] = [];
  const call = (async (...args: unknown[]) => { calls.push(args); return "result"; }) as MeshClient["call"];
  return { client: { call }, calls };
}

test("a client of a class calls its actions by their full names", async () => {
  const { client, calls } = recording();
  const users = serviceClient<UsersService>(client, UsersService);
  assert.equal(await users.create({ email: "a" }, { timeoutMs: 5 }), "result");
  await users.find();
  assert.deepEqual(calls, [["v2.users.create", { email: "a" }, { timeoutMs: 5 }], ["v2.users.lookup", undefined, undefined]]);
});

test("its methods can be taken off it", async () => {
  const { client, calls } = recording();
  const { create } = serviceClient<UsersService>(client, UsersService);
  await create({ email: "b" });
  assert.equal(calls.length, 1);
});

test("a member that is no action rejects when it is called, and calls nobody", async () => {
  const { client, calls } = recording();
  const users = serviceClient(client, UsersService) as unknown as Record<string, () => Promise<unknown>>;
  for (const member of ["helper", "nothing", "lookup"]) {
    await assert.rejects(users[member]!(), (error) => error instanceof MeshActionNotFoundError && error.message === `mesh action not found: v2.users.${member}`);
  }
  assert.deepEqual(calls, []);
});

test("a client by name takes every member for an action", async () => {
  const { client, calls } = recording();
  await serviceClient<UsersService>(client, "v2.users").create({ email: "c" });
  assert.deepEqual(calls[0]![0], "v2.users.create");
});

test("a client of a definition calls its actions", async () => {
  const { client, calls } = recording();
  const math = service({ name: "math", actions: { add: async (_ctx: Context, args: { a: number }) => args.a } });
  await (serviceClient(client, math) as unknown as Record<string, (args: unknown) => Promise<unknown>>).add!({ a: 1 });
  assert.deepEqual(calls[0], ["v1.math.add", { a: 1 }, undefined]);
});

describe("a client is no more than its actions", () => {
  const { client, calls } = recording();
  const users = serviceClient(client, "v1.users") as unknown as Record<PropertyKey, unknown>;

  test("it can be awaited, printed, compared and turned into JSON", async () => {
    assert.equal(await (users as unknown as Promise<unknown>), users);
    assert.equal(typeof inspect(users), "string");
    assert.equal(JSON.stringify({ users }), '{"users":{}}');
    assert.throws(() => String(users), TypeError);
    assert.deepEqual(calls, []);
  });

  test("it has no members of JavaScript's own", () => {
    for (const key of ["then", "toString", "constructor", "__proto__", "valueOf", Symbol.iterator, Symbol.toPrimitive]) assert.equal(users[key], undefined, String(key));
  });

  test("it cannot be written to", () => {
    assert.throws(() => { users.create = 1; }, TypeError);
  });
});

test("what is no service is refused at once", () => {
  class Plain {}
  assert.throws(() => serviceClient(recording().client, Plain), ServiceDefinitionError);
});
