import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { Action, Event, Method, Service, service, Started, Stopped, type Context, type ServiceDefinitionError, type ServiceDescriptor, type ServiceSelf } from "@chimpbase/mesh";
import { actionNames, describe, instantiate } from "#mesh/service/describe.js";
import { defines, run, runEvent, runHooks } from "./running.js";

test("a class becomes a descriptor with its name, version, settings, methods, actions, events and hooks", async () => {
  @Service({ name: "users", version: 2, settings: { maxPerPage: 50 } })
  class Accounts {
    @Method() normalize(email: string) { return email.toLowerCase(); }
    @Action({ timeoutMs: 100, retry: { attempts: 2 } }) create(_ctx: Context, args: { email: string }) { return this.normalize(args.email); }
    @Action("all") list() { return []; }
    @Event("user.deleted") onDeleted() {}
    @Event("order.paid", { balanced: true, group: "billing", maxAttempts: 3 }) onPaid() {}
    @Event({ name: "audit.**", concurrency: 4 }) onAudit() {}
    @Started() warmUp() {}
    @Stopped() close() {}
    private() {}
  }
  const descriptor = describe(Accounts);
  assert.deepEqual(outline(descriptor), {
    name: "users", version: 2, settings: { maxPerPage: 50 }, methods: ["normalize"],
    actions: { create: { name: "create", timeoutMs: 100, retry: { attempts: 2 } }, all: { name: "all" } },
    events: {
      "user.deleted": { name: "user.deleted", balanced: false },
      "order.paid": { name: "order.paid", balanced: true, group: "billing", maxAttempts: 3 },
      "audit.**": { name: "audit.**", balanced: false, concurrency: 4 },
    },
    started: 1, stopped: 1,
  });
  assert.deepEqual(Object.keys(descriptor), ["name", "version", "settings", "methods", "actions", "events", "started", "stopped"]);
  assert.equal(await run(descriptor, "create", { email: "A@B" }), "a@b");
});

test("class and object give equal descriptors", () => {
  @Service({ name: "users", version: 2, settings: { a: { b: 1 } } })
  class Users {
    @Method() normalize() {}
    @Action({ timeoutMs: 5 }) create() {}
    @Event("order.paid", { balanced: true, retryDelayMs: 0, transaction: false }) onPaid() {}
    @Event("user.deleted") onDeleted() {}
    @Started() up() {}
    @Stopped() down() {}
  }
  const object = service({
    name: "users", version: 2, settings: { a: { b: 1 } },
    methods: { normalize() {} },
    actions: { create: { timeoutMs: 5, handler: () => undefined } },
    events: { "order.paid": { balanced: true, retryDelayMs: 0, transaction: false, handler: () => undefined }, "user.deleted": () => undefined },
    started: () => undefined, stopped: () => undefined,
  });
  assert.deepEqual(outline(describe(Users)), outline(object));
});

test("names default to the class without the suffix Service, first letter lower, and to the member", () => {
  @Service() class UserProfilesService { @Action() list() {} @Event() ping() {} }
  @Service() class Billing {}
  @Service("mail") class Mailer {}
  @Service() class Service_ {}
  assert.equal(describe(UserProfilesService).name, "userProfiles");
  assert.deepEqual([...Object.keys(describe(UserProfilesService).actions), ...Object.keys(describe(UserProfilesService).events)], ["list", "ping"]);
  assert.deepEqual([describe(Billing).name, describe(Billing).version], ["billing", 1]);
  assert.equal(describe(Mailer).name, "mail");
  assert.equal(describe(Service_).name, "service_");
});

test("describe returns the same descriptor each time, and a descriptor as it is", () => {
  @Service() class Users { @Action() list() {} }
  const users = new Users();
  assert.equal(describe(Users), describe(Users));
  assert.equal(describe(users), describe(users));
  assert.notEqual(describe(users), describe(Users));
  assert.equal(describe(describe(Users)), describe(Users));
  const definition = service({ name: "a" });
  assert.equal(describe(definition), definition);
});

test("a descriptor is frozen in depth; values of other classes in the settings are left alone", () => {
  class Pool { size = 1; }
  const pool = new Pool();
  const descriptor = service({ name: "a", settings: { deep: { list: [{ x: 1 }] }, pool }, actions: { b: { retry: { attempts: 1 }, handler() {} } }, events: { c() {} } });
  const frozen: object[] = [
    descriptor, descriptor.settings, descriptor.settings.deep as object, (descriptor.settings.deep as { list: object[] }).list,
    (descriptor.settings.deep as { list: object[] }).list[0]!, descriptor.methods, descriptor.actions, descriptor.actions.b!, descriptor.actions.b!.retry!,
    descriptor.events, descriptor.events.c!, descriptor.started, descriptor.stopped,
  ];
  assert.ok(frozen.every((part) => Object.isFrozen(part)));
  assert.equal(descriptor.settings.pool, pool);
  assert.ok(!Object.isFrozen(pool));
});

test("what was given is copied, so later changes to it do nothing", () => {
  const settings = { list: [1] };
  const descriptor = service({ name: "a", settings });
  settings.list.push(2);
  assert.deepEqual(descriptor.settings, { list: [1] });
});

test("handlers get context, arguments and self, with the instance as this", () => {
  @Service() class Users {
    calls: unknown[] = [];
    @Action() create(ctx: Context, args: unknown, self: ServiceSelf) { this.calls.push(["create", ctx, args, self]); }
    @Event("x") onX(ctx: Context, payload: unknown, self: ServiceSelf) { this.calls.push(["onX", ctx, payload, self]); }
    @Started() up(ctx: Context, self: ServiceSelf) { this.calls.push(["up", ctx, self]); }
    @Method() add(a: number, b: number) { return [this instanceof Users, a + b]; }
  }
  const users = new Users();
  const descriptor = describe(users);
  const [ctx, self] = [{} as Context, {} as ServiceSelf];
  descriptor.actions.create!.handler(ctx, 1, self);
  descriptor.events.x!.handler(ctx, 2, self);
  descriptor.started[0]!(ctx, self);
  assert.deepEqual(users.calls, [["create", ctx, 1, self], ["onX", ctx, 2, self], ["up", ctx, self]]);
  assert.deepEqual(descriptor.methods.add!(1, 2), [true, 3]);
});

test("methods of a definition reach each other, and those of mixins, by this", () => {
  const mixin = service({ name: "m", methods: { twice(n: number) { return n * 2; } } });
  const { methods } = service({ name: "s", mixins: [mixin], methods: { four(this: { twice(n: number): number }, n: number) { return this.twice(this.twice(n)); } } });
  assert.equal(methods.four!(3), 12);
});

test("handlers are looked up when they run, so spies and replaced methods are seen", async () => {
  @Service() class Users { @Action() list(): string { return "real"; } }
  const users = new Users();
  const descriptor = describe(users);
  users.list = () => "spy";
  assert.equal(await run(descriptor, "list"), "spy");
});

test("one method may carry several decorators", async () => {
  @Service() class Users {
    @Event("a") @Event("b", { balanced: true }) onBoth() { return "both"; }
    @Action() @Method() find() { return "found"; }
    @Action("one") @Action("two") many() { return "many"; }
  }
  const descriptor = describe(Users);
  assert.deepEqual(Object.keys(descriptor.events).sort(), ["a", "b"]);
  assert.equal(descriptor.events.b!.balanced, true);
  assert.equal(await run(descriptor, "find"), "found");
  assert.equal(descriptor.methods.find!(), "found");
  assert.equal(await run(descriptor, "one"), await run(descriptor, "two"));
});

test("two members may handle one event: both run, in order", async () => {
  const seen: string[] = [];
  @Service() class Users {
    @Event("x") first() { seen.push("first"); }
    @Event("x") second() { seen.push("second"); }
  }
  await runEvent(describe(Users), "x");
  assert.deepEqual(seen, ["first", "second"]);
});

test("decorators may be applied by hand, as JavaScript without a compiler does", () => {
  class Users { list() {} }
  Action({ name: "all" })(Users.prototype, "list", Object.getOwnPropertyDescriptor(Users.prototype, "list")!);
  Service("users")(Users);
  assert.deepEqual(Object.keys(describe(Users).actions), ["all"]);
});

test("typed clients find an action by its member", () => {
  const audit = service({ name: "audit", actions: { trail: () => 1, list: () => 2 } });
  @Service({ mixins: [audit] }) class Users { @Action("all") list() {} @Action() create() {} @Action("a.b") dotted() {} }
  assert.deepEqual(Object.fromEntries(actionNames(Users)), { list: "all", create: "create", dotted: "a.b", trail: "trail" });
  assert.deepEqual(Object.fromEntries(actionNames(audit)), { trail: "trail", list: "list" });
});

test("an instance is made when a handler first runs, once", async () => {
  let made = 0;
  @Service() class Users {
    constructor() { made++; }
    @Action() list() {}
    @Action() count() {}
  }
  const descriptor = describe(Users);
  actionNames(Users);
  assert.equal(made, 0);
  await run(descriptor, "list");
  await run(descriptor, "count");
  assert.equal(made, 1);
});

test("instantiate makes one instance for each host, at once", async () => {
  let made = 0;
  @Service() class Users { id = ++made; @Action() who() { return this.id; } }
  const [first, second] = [instantiate(Users), instantiate(Users)];
  assert.equal(made, 2);
  assert.deepEqual([await run(first, "who"), await run(second, "who"), await run(first, "who")], [1, 2, 1]);
});

test("instantiate asks resolve for classes, mixins too, and leaves instances as they are", async () => {
  class Audit { constructor(readonly name: string) {} @Action() trail() { return this.name; } }
  @Service({ mixins: [Audit] }) class Users { constructor(readonly name: string) {} @Action() who() { return this.name; } }
  const asked: unknown[] = [];
  const resolve = (type: new (name: string) => object): object => { asked.push(type); return new type("given"); };
  const descriptor = instantiate(Users, { resolve });
  assert.deepEqual([await run(descriptor, "who"), await run(descriptor, "trail")], ["given", "given"]);
  assert.deepEqual(new Set(asked), new Set([Users, Audit]));
  const own = instantiate(new Users("mine"), { resolve });
  assert.deepEqual([await run(own, "who"), await run(own, "trail")], ["mine", "given"]);
  assert.equal(await run(instantiate(describe(Users), { resolve }), "who"), "given");
});

test("a class whose constructor needs arguments fails at registration, naming class and option; describe alone does not", async () => {
  @Service() class OrdersService { constructor(readonly repo: object) {} @Action() list() {} }
  class Derived extends OrdersService {}
  class Passing extends OrdersService { constructor(...all: [object]) { super(...all); } }
  const descriptor = describe(OrdersService);
  for (const type of [OrdersService, Derived, Passing]) assert.throws(() => instantiate(type), defines(type.name, "resolve", "1 argument"));
  await assert.rejects(run(descriptor, "list"), defines("OrdersService", "resolve"));
});

test("a constructor with default values, or a derived one that supplies arguments, needs no resolver", () => {
  @Service() class Users { constructor(readonly mailer = {}) {} }
  @Service() class Base { constructor(readonly repo: object) {} }
  class Derived extends Base { constructor() { super({}); } }
  @Service() class Emitting extends EventEmitter {}
  @Service() class Plain extends Object {}
  class Spread extends Base { constructor() { super(...([{}] as const)); } }
  for (const type of [Users, Derived, Emitting, Plain, Spread]) instantiate(type);
});

test("what resolve and constructors do wrong is told with the class and the cause", () => {
  const boom = new Error("no database");
  @Service() class Users { @Action() list() {} }
  @Service() class Broken { constructor() { throw boom; } }
  assert.throws(() => instantiate(Users, { resolve: (() => null) as never }), defines("Users", "resolve", "null"));
  assert.throws(() => instantiate(Users, { resolve: (async () => new Users()) as never }), defines("Users", "promise"));
  assert.throws(() => instantiate(Users, { resolve: () => ({}) }), defines("Users", "list", "resolve"));
  assert.throws(() => instantiate(Users, { resolve: () => { throw boom; } }), (error: ServiceDefinitionError) => defines("Users", "no database")(error) && error.cause === boom);
  assert.throws(() => instantiate(Broken), (error: ServiceDefinitionError) => defines("Broken", "no database")(error) && error.cause === boom);
});

test("hooks run in the order of started and stopped", async () => {
  const seen: string[] = [];
  @Service() class Users {
    @Started() one() { seen.push("one"); }
    @Started() two() { seen.push("two"); }
    @Stopped() three() { seen.push("three"); }
    @Stopped() four() { seen.push("four"); }
  }
  const descriptor = describe(Users);
  await runHooks(descriptor.started);
  await runHooks(descriptor.stopped);
  assert.deepEqual(seen, ["one", "two", "three", "four"]);
});

/** A descriptor without its functions, for comparison. */
function outline(descriptor: ServiceDescriptor): unknown {
  const plain = (table: Readonly<Record<string, { handler: unknown }>>): unknown =>
    Object.fromEntries(Object.entries(table).map(([name, { handler, ...rest }]) => {
      assert.equal(typeof handler, "function");
      return [name, rest];
    }));
  return {
    ...descriptor, methods: Object.keys(descriptor.methods), actions: plain(descriptor.actions), events: plain(descriptor.events),
    started: descriptor.started.length, stopped: descriptor.stopped.length,
  };
}
