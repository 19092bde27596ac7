import assert from "node:assert/strict";
import { test } from "node:test";
import { Action, Event, Method, Service, Started, Stopped, type Context } from "@chimpbase/mesh";
import { actionNames, describe } from "#mesh/service/describe.js";
import { run, runEvent, runHooks } from "./running.js";

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what TypeScript asks of mixin functions
type Constructor = new (...args: any[]) => object;

test("a subclass takes on what its bases declare, and changes neither base nor siblings", () => {
  @Service("base") class Base { @Action() list() {} @Event("x") onX() {} @Method() help() {} }
  @Service("left") class Left extends Base { @Action() left() {} }
  @Service("right") class Right extends Base { @Action() right() {} @Event("y") onY() {} }
  assert.deepEqual(Object.keys(describe(Base).actions), ["list"]);
  assert.deepEqual(Object.keys(describe(Left).actions), ["list", "left"]);
  assert.deepEqual(Object.keys(describe(Right).actions), ["list", "right"]);
  assert.deepEqual([Base, Left, Right].map((type) => Object.keys(describe(type).events)), [["x"], ["x"], ["x", "y"]]);
  assert.deepEqual(Object.keys(describe(Left).methods), ["help"]);
});

test("an override without a decorator keeps the base's declaration and runs the override, with super", async () => {
  class Base { @Action({ name: "all", timeoutMs: 9 }) list() { return ["base"]; } }
  @Service() class Users extends Base { override list() { return [...super.list(), "users"]; } }
  const descriptor = describe(Users);
  assert.equal(descriptor.actions.all!.timeoutMs, 9);
  assert.deepEqual(await run(descriptor, "all"), ["base", "users"]);
});

test("the nearest declaration wins whole", () => {
  class Base { @Action({ timeoutMs: 9, retry: { attempts: 2 } }) list() {} @Action() find() {} }
  @Service() class Users extends Base {
    @Action({ timeoutMs: 1 }) override list() {}
    @Action("found") override find() {}
  }
  const { actions } = describe(Users);
  assert.deepEqual(Object.keys(actions), ["list", "found"]);
  assert.equal(actions.list!.timeoutMs, 1);
  assert.equal(actions.list!.retry, undefined);
});

test("a derived member takes an action name over from its base's member", async () => {
  class Base { @Action() list() { return "base"; } }
  @Service() class Users extends Base { @Action("list") all() { return "users"; } }
  assert.equal(await run(describe(Users), "list"), "users");
  assert.deepEqual(Object.fromEntries(actionNames(Users)), { all: "list" });
});

test("false on an override removes an action or event; a further subclass may bring it back", () => {
  class Base { @Action("all") list() {} @Event("x") onX() {} @Action() keep() {} }
  @Service("users") class Users extends Base { @Action(false) override list() {} @Event(false) override onX() {} }
  @Service("more") class More extends Users { @Action("all") override list() {} @Event("x") override onX() {} }
  assert.deepEqual([Object.keys(describe(Users).actions), Object.keys(describe(Users).events)], [["keep"], []]);
  assert.deepEqual([Object.keys(describe(More).actions), Object.keys(describe(More).events)], [["keep", "all"], ["x"]]);
});

test("a derived member for an event that the base handles too runs after the base's", async () => {
  const seen: string[] = [];
  class Base { @Event("x") audit() { seen.push("base"); } }
  @Service() class Users extends Base { @Event("x") clean() { seen.push("users"); } }
  await runEvent(describe(Users), "x");
  assert.deepEqual(seen, ["base", "users"]);
});

test("@Event on an override leaves its base's @Action alone", () => {
  class Base { @Action() refresh() {} }
  @Service() class Users extends Base { @Event("changed") override refresh() {} }
  assert.deepEqual([Object.keys(describe(Users).actions), Object.keys(describe(Users).events)], [["refresh"], ["changed"]]);
});

test("settings merge in depth, derived over base; arrays are replaced", () => {
  @Service({ settings: { page: { size: 10, max: 50 }, tags: ["a", "b"], keep: 1 } }) class Base {}
  @Service({ settings: { page: { size: 20 }, tags: ["c"] } }) class Users extends Base {}
  assert.deepEqual(describe(Users).settings, { page: { size: 20, max: 50 }, tags: ["c"], keep: 1 });
  assert.deepEqual(describe(Base).settings, { page: { size: 10, max: 50 }, tags: ["a", "b"], keep: 1 });
});

test("settings cannot reach a prototype", () => {
  @Service({ settings: { constructor: { prototype: { polluted: 1 } }, toString: { polluted: 1 } } }) class Base {}
  @Service({ settings: { constructor: { prototype: { more: 1 } } } }) class Users extends Base {}
  assert.deepEqual(describe(Users).settings.constructor, { prototype: { polluted: 1, more: 1 } });
  assert.equal(({} as { polluted?: unknown }).polluted, undefined);
  assert.equal((Object as unknown as { polluted?: unknown }).polluted, undefined);
});

test("started runs base to derived and stopped derived to base, an overridden hook once", async () => {
  const seen: string[] = [];
  class Base {
    @Started() baseUp() { seen.push("base up"); }
    @Started() shared() { seen.push("base shared"); }
    @Stopped() baseDown() { seen.push("base down"); }
    @Stopped() sharedDown() { seen.push("base shared down"); }
  }
  @Service() class Users extends Base {
    @Started() up() { seen.push("up"); }
    override shared() { seen.push("shared"); }
    @Stopped() down() { seen.push("down"); }
    @Stopped() override sharedDown() { seen.push("shared down"); }
  }
  const descriptor = describe(Users);
  await runHooks(descriptor.started);
  await runHooks(descriptor.stopped);
  assert.deepEqual(seen, ["base up", "shared", "up", "down", "shared down", "base down"]);
});

test("mixin functions are inheritance like any other", async () => {
  const Paged = <B extends Constructor>(Base: B) => {
    class PagedBase extends Base { @Action() page(_ctx: Context, args: number) { return `page ${args}`; } @Event("flush") flushPages() { seen.push("pages"); } }
    return PagedBase;
  };
  const Cached = <B extends Constructor>(Base: B) => {
    class CachedBase extends Base { @Method() cached() { return true; } @Event("flush") flushCache() { seen.push("cache"); } }
    return CachedBase;
  };
  const seen: string[] = [];
  @Service() class Users extends Cached(Paged(Object)) { @Action() list() {} }
  @Service() class Plain extends Paged(Object) {}
  const descriptor = describe(Users);
  assert.deepEqual(Object.keys(descriptor.actions), ["page", "list"]);
  assert.equal(descriptor.methods.cached!(), true);
  assert.equal(await run(descriptor, "page", 3), "page 3");
  await runEvent(descriptor, "flush");
  assert.deepEqual(seen, ["pages", "cache"]);
  assert.deepEqual(Object.keys(describe(Plain).methods), []);
});

test("a subclass without @Service is the service that its base is: a test double, or a class that another decorator wrapped", async () => {
  @Service("users") class Users { @Action() list() { return "real"; } }
  class Double extends Users { override list() { return "double"; } }
  const Wrapped = ((type: typeof Users) => class extends type {})(Users);
  assert.equal(describe(Double).name, "users");
  assert.equal(await run(describe(Double), "list"), "double");
  assert.equal(await run(describe(new Wrapped()), "list"), "real");
  assert.equal(await run(describe(Users), "list"), "real");
});

test("a class that another decorator replaced by a proxy or a copy keeps its declarations", () => {
  const Proxied = <T extends object>(type: T): T => new Proxy(type, {});
  @Service("outer") @Proxied class Outer { @Action() list() {} }
  @Proxied @Service("inner") class Inner { @Action() list() {} }
  for (const type of [Outer, Inner]) assert.deepEqual(Object.keys(describe(type).actions), ["list"]);
});
