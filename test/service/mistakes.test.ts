import assert from "node:assert/strict";
import { test } from "node:test";
import * as decorators from "#mesh/service/decorators.js";
import { describe, instantiate } from "#mesh/service/describe.js";
import { service } from "@chimpbase/mesh";
import { defines } from "./running.js";

type Apply = (...application: unknown[]) => void;
type Factory = (...args: unknown[]) => Apply;

// The compiler refuses most of what is tried here; users of JavaScript meet it at run time.
const { Service, Action, Event, Method, Started, Stopped } = decorators as unknown as Record<keyof typeof decorators, Factory>;

const tooLong = "a".repeat(129);

test("a class without @Service is refused, as class and as instance", () => {
  class Users { list() {} }
  class Marked { list() {} }
  decorate(Marked, "list", Action());
  assert.throws(() => describe(Users), defines("Users", "no @Service"));
  assert.throws(() => describe(new Users()), defines("Users", "no @Service"));
  assert.throws(() => describe(new Marked()), defines("Marked", "no @Service"));
  assert.throws(() => instantiate(Users), defines("Users", "no @Service"));
});

test("what is no source at all is refused", () => {
  for (const junk of [undefined, null, 1, "users", Symbol("x"), true]) assert.throws(() => describe(junk as never), defines("expects a class with @Service"));
  assert.throws(() => describe(() => 1), defines("expects a class"));
  assert.throws(() => describe(new Map()), defines("Map", "no @Service"));
  assert.throws(() => describe([]), defines("Array", "no @Service"));
  assert.throws(() => service(class Users {} as never), defines("plain object"));
  assert.throws(() => service(null as never), defines("plain object"));
});

test("two members with one action or method name are both named", () => {
  assert.throws(() => describe(define({ first: Action("list"), second: Action("list") })), defines("Users", '"list"', "first", "second"));
  assert.throws(() => describe(define({ first: Method("help"), second: Method("help") })), defines("Users", '"help"', "first", "second"));
  assert.throws(() => describe(define({ first: [Event("x"), Event("x")] })), defines("Users.first", '"x"', "twice"));
});

test("static, private, symbol and non-method members cannot be decorated", () => {
  class Users {
    static shared() {}
    [Symbol.for("hidden")]() {}
    get total() { return 1; }
    list(_ctx: unknown) {}
  }
  const refused = (apply: (type: typeof Users) => void, ...parts: string[]): void => {
    const type = class Users_ extends Users {};
    apply(type);
    Service("users")(type);
    assert.throws(() => describe(type), defines(...parts));
  };
  for (const factory of [Action, Event, Method, Started, Stopped]) {
    refused((type) => factory()(type, "shared", Object.getOwnPropertyDescriptor(Users, "shared")), "Users_.shared", "static");
    refused((type) => factory()(type.prototype, Symbol.for("hidden"), { value() {} }), "Users_.Symbol(hidden)", "symbol");
    refused((type) => factory()(type.prototype, "total", Object.getOwnPropertyDescriptor(Users.prototype, "total")), "Users_.total", "accessor");
    refused((type) => factory()(type.prototype, "field", undefined), "Users_.field", "field", "field(…) { … }");
    refused((type) => factory()(type.prototype, "list", 0), "Users_.list", "parameter");
    refused((type) => factory()(type), "Users_", "belongs on a method");
  }
  refused((type) => Service()(type.prototype, "list", { value() {} }), "Users_.list", "belongs on the class");
});

test("forgotten parentheses are told apart from a missing decorator", () => {
  class Users { list() {} }
  class Orders {}
  assert.equal(Action(Users.prototype, "list", { value: Users.prototype.list }), undefined);
  assert.equal(Service(Orders), undefined);
  assert.throws(() => describe(withService(Users)), defines("Users.list", "write @Action()"));
  assert.throws(() => describe(Orders), defines("Orders", "write @Service()"));
});

test("names are checked: service, action, event, group and method", () => {
  const bad: [unknown, string][] = [["", "empty"], ["1st", "illegal"], ["a b", "illegal"], ["a..b", "illegal"], ["a.", "illegal"], ["é", "illegal"], ["a\n", "illegal"], [tooLong, "128"]];
  for (const [name, problem] of bad) {
    assert.throws(() => describe(withService(class Users {}, name)), defines("Users", "service name", problem));
    assert.throws(() => describe(define({ list: Action(name) })), defines("Users.list", "action name", problem));
    assert.throws(() => describe(define({ list: Event(name) })), defines("Users.list", "event name", problem));
    assert.throws(() => describe(define({ list: Event("x", { balanced: true, group: name }) })), defines("Users.list", "group name", problem));
    assert.throws(() => describe(define({ list: Method(name) })), defines("Users.list", "method name", problem));
    assert.throws(() => service({ name: "s", actions: { [name as string]: () => 1 } }), defines('service "s"', "action name", problem));
  }
  for (const name of ["_x", "$x", "__x", "*", "a.*"]) assert.throws(() => describe(define({ list: Action(name) })), defines("illegal action name"));
  for (const name of ["a*", "***", "a.***", "__", "_x", ".a", "a.b*"]) assert.throws(() => describe(define({ list: Event(name) })), defines("illegal event name"));
  assert.throws(() => describe(define({ list: Method("__proto__") })), defines("illegal method name"));
});

test("legal names pass", () => {
  for (const name of ["a", "A.b.c", "a-b_c$d", "v1.0", "a".repeat(128)]) assert.deepEqual(Object.keys(describe(define({ list: Action(name) })).actions), [name]);
  for (const name of ["order.*", "*", "**", "a.**.b", "*.b", "__chimpbase.mesh.x", "__proto__"]) assert.deepEqual(Object.keys(describe(define({ list: Event(name) })).events), [name]);
  assert.equal(({} as { name?: unknown }).name, undefined);
});

test("a member whose name is no legal action name needs one", () => {
  assert.throws(() => describe(define({ _list: Action() })), defines("Users._list", "illegal action name"));
});

test("anonymous classes need a name", () => {
  assert.throws(() => describe(withService(class {})), defines("anonymous", '@Service("name")'));
  assert.equal(describe(withService(class {}, "named")).name, "named");
});

test("a version is a positive integer", () => {
  for (const version of [0, -1, 1.5, NaN, Infinity, "1", null]) {
    assert.throws(() => describe(withService(class Users {}, { version })), defines("Users", "version", "positive integer"));
    assert.throws(() => service({ name: "s", version: version as number }), defines('service "s"', "version", "positive integer"));
  }
});

test("unknown options are named, with what may have been meant", () => {
  assert.throws(() => describe(define({ list: Action({ timeoutMS: 1 }) })), defines("Users.list", '"timeoutMS"', "did you mean \"timeoutMs\"?"));
  assert.throws(() => describe(define({ list: Action({ retry: { attempt: 1 } }) })), defines("Users.list", '"retry.attempt"', "did you mean \"attempts\"?"));
  assert.throws(() => describe(define({ list: Event("x", { ballanced: true }) })), defines("did you mean \"balanced\"?"));
  assert.throws(() => describe(define({ list: Event("x", { exotic: true }) })), defines('"exotic"', "known are"));
  assert.throws(() => describe(withService(class Users {}, { setings: {} })), defines("Users", "did you mean \"settings\"?"));
  assert.throws(() => service({ name: "s", action: {} } as never), defines('service "s"', "did you mean \"actions\"?"));
  assert.throws(() => service({ name: "s", actions: { a: { handler() {}, balanced: true } } } as never), defines("actions.a", '"balanced"'));
});

test("options of the wrong kind are named with what they must be", () => {
  const action: Record<string, unknown[]> = {
    timeoutMs: [0, -1, NaN, Infinity, "5"], retry: [3, null, [], { attempts: -1 }, { attempts: 1.5 }, { delayMs: -1 }, { factor: 0 }, { jitter: 2 }],
    params: [3, {}, "x", null, class Plain {}, String, () => 1, { "~standard": 1 }],
  };
  for (const [key, values] of Object.entries(action)) for (const value of values) assert.throws(() => describe(define({ list: Action({ [key]: value }) })), defines("Users.list", key));
  const event: Record<string, unknown[]> = { concurrency: [0, 1.5, "2"], maxAttempts: [0, "3"], retryDelayMs: [-1, "1"], transaction: [0, "no"], group: [1, {}] };
  for (const [key, values] of Object.entries(event)) for (const value of values) assert.throws(() => describe(define({ list: Event("x", { balanced: true, [key]: value }) })), defines("Users.list", key));
  assert.throws(() => describe(define({ list: Event("x", { balanced: 1 }) })), defines("balanced", "true or false"));
  assert.throws(() => describe(define({ list: Action({ params: undefined }) })), defines("params is undefined", "circular import"));
});

test("options of balanced events on a broadcast are refused", () => {
  for (const options of [{ group: "g" }, { maxAttempts: 1 }, { retryDelayMs: 1 }, { transaction: true }]) {
    assert.throws(() => describe(define({ list: Event("x", options) })), defines("Users.list", Object.keys(options)[0]!, "balanced: true"));
    assert.throws(() => service({ name: "s", events: { x: { ...options, handler() {} } } }), defines("events.x", "balanced: true"));
  }
});

test("arguments that fit no form of a decorator are refused", () => {
  for (const args of [[3], [null], [true], [[]], [class X {}], ["a", "b"], [{}, {}]]) assert.throws(() => describe(define({ list: Action(...args) })), defines("Users.list"));
  for (const args of [[3], [null], [true], ["a", 3], ["a", { name: "b" }], [{}, {}], ["a", {}, {}]]) assert.throws(() => describe(define({ list: Event(...args) })), defines("Users.list"));
  for (const args of [[3], [{}], [null], ["a", "b"]]) assert.throws(() => describe(define({ list: Method(...args) })), defines("Users.list"));
  for (const factory of [Started, Stopped]) assert.throws(() => describe(define({ list: factory("x") })), defines("Users.list", "no arguments"));
  for (const args of [[3], [null], ["a", {}]]) assert.throws(() => describe(withService(class Users {}, ...args)), defines("Users"));
  const twice = withService(class Users {}, "a");
  Service("b")(twice);
  assert.throws(() => describe(twice), defines("Users", "two @Service"));
});

test("definitions name the entry that is wrong", () => {
  const wrong: [object, ...string[]][] = [
    [{}, "needs a name"], [{ name: 3 }, "service name", "string"], [{ name: "s", actions: [] }, "actions", "array"], [{ name: "s", actions: { a: 3 } }, "actions.a"],
    [{ name: "s", actions: { a: { handler: 3 } } }, "actions.a", "handler"], [{ name: "s", actions: { a: { name: "b", handler() {} } } }, "two names"],
    [{ name: "s", events: { x: null } }, "events.x"], [{ name: "s", methods: { m: 3 } }, "methods.m"], [{ name: "s", methods: () => 1 }, "methods"],
    [{ name: "s", started: 3 }, "started"], [{ name: "s", stopped: [3] }, "stopped"], [{ name: "s", settings: [] }, "settings"], [{ name: "s", settings: new Map() }, "settings"],
    [{ name: "s", mixins: {} }, "mixins", "array"], [{ name: "s", settings: JSON.parse('{"a":{"__proto__":{}}}') as object }, "__proto__"],
  ];
  for (const [definition, ...parts] of wrong) assert.throws(() => service(definition as never), defines(...parts));
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  assert.throws(() => service({ name: "s", settings: circular }), defines('service "s"', "circular"));
});

function withService<T extends new () => object>(type: T, ...args: unknown[]): T {
  Service(...args)(type);
  return type;
}

/** A service class `Users` with one method for each key, decorated as legacy compilers do. */
function define(members: Record<string, Apply | Apply[]>): new () => object {
  const Users = class Users {};
  for (const [key, decorator] of Object.entries(members)) {
    Object.defineProperty(Users.prototype, key, { value() {}, configurable: true, writable: true });
    for (const one of [decorator].flat()) decorate(Users, key, one);
  }
  return withService(Users, "users");
}

function decorate(type: new () => object, key: string, decorator: Apply): void {
  decorator(type.prototype, key, Object.getOwnPropertyDescriptor(type.prototype, key));
}
