import assert from "node:assert/strict";
import { test } from "node:test";
import { IsInt, IsString } from "class-validator";
import { Action, Event, MeshError, MeshValidationError, Method, Service, service, Started, Stopped, type Context, type ServiceSelf } from "@chimpbase/mesh";
import { describe, instantiate } from "#mesh/service/describe.js";
import { defines, run, runEvent, runHooks } from "./running.js";

test("a service takes on actions, events, methods, settings and hooks of classes and definitions", async () => {
  const seen: string[] = [];
  class Auditable {
    @Action() trail(_ctx: Context, _args: unknown, self: ServiceSelf) { return `${self.name} ${String(self.settings.keep)}`; }
    @Method() audit() { return "audited"; }
    @Event("x") onX() { seen.push("auditable x"); }
    @Started() up() { seen.push("auditable up"); }
    @Stopped() down() { seen.push("auditable down"); }
  }
  const paged = service({
    name: "paged", version: 7, settings: { page: { size: 10, max: 50 } },
    methods: { clamp: (n: number) => Math.min(n, 50) }, actions: { page: () => "page" }, started: () => void seen.push("paged up"), stopped: () => void seen.push("paged down"),
  });
  @Service({ name: "users", mixins: [Auditable, paged], settings: { page: { size: 20 }, keep: 7 } })
  class Users {
    @Action() list() { return "list"; }
    @Started() up() { seen.push("users up"); }
    @Stopped() down() { seen.push("users down"); }
  }
  const descriptor = describe(Users);
  assert.deepEqual([descriptor.name, descriptor.version], ["users", 1]);
  assert.deepEqual(Object.keys(descriptor.actions), ["trail", "page", "list"]);
  assert.deepEqual(descriptor.settings, { page: { size: 20, max: 50 }, keep: 7 });
  assert.equal(descriptor.methods.audit!(), "audited");
  assert.equal(descriptor.methods.clamp!(99), 50);
  assert.equal(await run(descriptor, "trail"), "users 7");
  await runHooks(descriptor.started);
  await runEvent(descriptor, "x");
  await runHooks(descriptor.stopped);
  assert.deepEqual(seen, ["auditable up", "paged up", "users up", "auditable x", "users down", "paged down", "auditable down"]);
});

test("the class comes over later mixins, and those over earlier ones, option by option", async () => {
  const first = service({ name: "first", actions: { a: { timeoutMs: 1, retry: { attempts: 1, delayMs: 5 }, handler: () => "first" }, b: () => "first", c: () => "first" }, methods: { m: () => "first" } });
  const second = service({ name: "second", actions: { a: { retry: { attempts: 2 }, handler: () => "second" }, b: () => "second" }, methods: { m: () => "second" } });
  const top = service({ name: "top", mixins: [first, second], actions: { a: () => "top" } });
  assert.deepEqual(await Promise.all(["a", "b", "c"].map((name) => run(top, name))), ["top", "second", "first"]);
  assert.equal(top.methods.m!(), "second");
  assert.deepEqual([top.actions.a!.timeoutMs, top.actions.a!.retry], [1, { attempts: 2, delayMs: 5 }]);
});

test("a definition changes options of a mixin's action, or removes it, without a handler of its own", async () => {
  const crud = service({ name: "crud", actions: { list: () => "list", remove: () => "remove" }, events: { x: { balanced: true, handler: () => undefined }, y: () => undefined } });
  const users = service({ name: "users", mixins: [crud], actions: { list: { timeoutMs: 5 }, remove: false }, events: { x: { maxAttempts: 2 }, y: false } });
  assert.equal(users.actions.list!.timeoutMs, 5);
  assert.equal(await run(users, "list"), "list");
  assert.deepEqual([Object.keys(users.actions), Object.keys(users.events)], [["list"], ["x"]]);
  assert.deepEqual([users.events.x!.balanced, users.events.x!.maxAttempts], [true, 2]);
  assert.throws(() => service({ name: "a", actions: { lost: { timeoutMs: 5 } } }), defines('service "a", actions.lost', "no handler"));
  assert.throws(() => service({ name: "a", events: { lost: { concurrency: 5 } } }), defines('service "a", events.lost', "no handler"));
});

test("@Action(false) in a class removes a mixin's action of that name", () => {
  const crud = service({ name: "crud", actions: { list: () => 1, remove: () => 1 }, events: { gone: () => 1 } });
  @Service({ mixins: [crud] }) class Users { @Action(false) remove() {} @Event(false) gone() {} }
  assert.deepEqual([Object.keys(describe(Users).actions), Object.keys(describe(Users).events)], [["list"], []]);
});

test("the same mixin reached twice counts once, at the place where it is reached first", async () => {
  const seen: string[] = [];
  class Base { @Event("x") onX() { seen.push("base"); } }
  @Service({ name: "left", mixins: [Base] }) class Left { @Event("x") onX() { seen.push("left"); } }
  @Service({ name: "right", mixins: [Base] }) class Right { @Event("x") onX() { seen.push("right"); } }
  @Service({ mixins: [Left, Right, Base, describe(Left)] }) class Users { @Event("x") onX() { seen.push("users"); } }
  await runEvent(describe(Users), "x");
  assert.deepEqual(seen, ["base", "left", "right", "users"]);
});

test("a listed mixin that the service extends is the service's own instance, and counts once", async () => {
  const seen: unknown[] = [];
  class Auditable { @Event("x") onX() { seen.push(this); } @Started() up() { seen.push("up"); } }
  @Service({ mixins: [Auditable] }) class Users extends Auditable {}
  const users = new Users();
  const descriptor = describe(users);
  await runEvent(descriptor, "x");
  await runHooks(descriptor.started);
  assert.deepEqual(seen, [users, "up"]);
});

test("a listed class has an instance of its own for each service that lists it", async () => {
  class Counter { count = 0; @Action() next() { return ++this.count; } }
  @Service({ name: "a", mixins: [Counter] }) class A {}
  @Service({ name: "b", mixins: [Counter] }) class B {}
  const [a, b] = [instantiate(A), instantiate(B)];
  assert.deepEqual([await run(a, "next"), await run(a, "next"), await run(b, "next")], [1, 2, 1]);
});

test("a definition's mixin classes are made anew for each host, by resolve", async () => {
  class Counter { constructor(readonly start: number) {} @Action() start_() { return this.start; } @Action() who() { return this; } }
  const definition = service({ name: "a", mixins: [Counter] });
  const resolve = (type: new (start: number) => object): object => new type(5);
  const [first, second] = [instantiate(definition, { resolve }), instantiate(definition, { resolve })];
  assert.equal(await run(first, "start_"), 5);
  assert.notEqual(await run(first, "who"), await run(second, "who"));
  assert.throws(() => instantiate(definition), defines("Counter", "resolve"));
});

test("only a true cycle is an error, and it names the way round", () => {
  const back: unknown[] = [];
  @Service({ mixins: back as object[] }) class A {}
  @Service({ mixins: [A] }) class B {}
  @Service({ mixins: [B] }) class C {}
  assert.deepEqual(Object.keys(describe(C).actions), []);
  back.push(B);
  @Service({ mixins: [A] }) class Fresh {}
  assert.throws(() => describe(Fresh), defines("A → B → A"));
  const own: object[] = [];
  const definition = { name: "own", mixins: own };
  own.push(definition);
  assert.throws(() => service(definition), defines('service "own" → service "own"'));
});

test("every handler of one event runs, also when others fail", async () => {
  const seen: string[] = [];
  const failing = (name: string, error?: Error) => service({ name, events: { x: () => { seen.push(name); if (error) throw error; } } });
  const boom = new MeshError("boom", { retryable: false });
  const one = service({ name: "s", mixins: [failing("a"), failing("b", boom), failing("c")], events: { x: async () => void seen.push("s") } });
  await assert.rejects(runEvent(one, "x"), boom);
  assert.deepEqual(seen, ["a", "b", "c", "s"]);
  const many = service({ name: "s", mixins: [failing("d", boom), failing("e", new Error("bang"))] });
  await assert.rejects(runEvent(many, "x"), (error: AggregateError & { retryable: boolean }) =>
    error instanceof AggregateError && error.errors.length === 2 && error.retryable && error.message === "2 of 2 handlers of event x failed: boom; bang");
  const final = service({ name: "s", mixins: [failing("f", boom), failing("g", boom)] });
  await assert.rejects(runEvent(final, "x"), (error: { retryable: boolean }) => error.retryable === false);
});

test("options of one event merge, and its handlers must agree on balanced", () => {
  const job = (name: string, maxAttempts: number) => service({ name, events: { x: { balanced: true, maxAttempts, concurrency: 2, handler: () => 1 } } });
  const merged = service({ name: "s", mixins: [job("a", 3)], events: { x: { balanced: true, maxAttempts: 9, handler: () => 1 } } });
  const { handler: _handler, ...rest } = merged.events.x!;
  assert.deepEqual(rest, { name: "x", balanced: true, maxAttempts: 9, concurrency: 2 });
  @Service({ mixins: [job("a", 3)] }) class Users { @Event("x") onX() {} }
  assert.throws(() => describe(Users), defines('service "a", events.x', "Users.onX", "balanced", "broadcast"));
  assert.throws(() => service({ name: "s", mixins: [service({ name: "b", events: { x: () => 1 } })], events: { x: { maxAttempts: 3 } } }), defines("events.x", "maxAttempts", "balanced: true"));
});

test("handlers of one event with different params each get their own input; with the same, the descriptor says so", async () => {
  class Name { @IsString() name!: string; }
  class Age { @IsInt() age!: number; }
  const seen: unknown[] = [];
  const take = (params: typeof Name | typeof Age | undefined) => service({ name: "m", events: { x: { ...(params === undefined ? {} : { params }), handler: (_ctx, payload: unknown) => void seen.push(payload) } } });
  const mixed = service({ name: "s", mixins: [take(Name), take(Age), take(undefined)] });
  assert.equal(mixed.events.x!.params, undefined);
  await runEvent(mixed, "x", { name: "n", age: 3 });
  assert.deepEqual(seen, [Object.assign(new Name(), { name: "n" }), Object.assign(new Age(), { age: 3 }), { name: "n", age: 3 }]);
  await assert.rejects(runEvent(mixed, "x", {}), (error) => error instanceof MeshValidationError && error.data.map(({ path }) => path).join() === "name,age");
  const same = service({ name: "s", mixins: [take(Name), take(Name)] });
  assert.equal(same.events.x!.params, Name);
});

test("a mixin needs neither name nor @Service; one that is neither class nor definition is named", () => {
  const users = service({ name: "users", mixins: [{ actions: { list: () => 1 } }] });
  assert.deepEqual(Object.keys(users.actions), ["list"]);
  assert.throws(() => service({ name: "users", mixins: [undefined as never] }), defines('service "users", mixins[0]', "circular import"));
  assert.throws(() => service({ name: "users", mixins: [3 as never] }), defines('service "users", mixins[0]', "3"));
  assert.throws(() => service({ name: "users", mixins: [new Date()] }), defines('service "users", mixins[0]', "Date"));
});
