import assert from "node:assert/strict";
import { test } from "node:test";
import {
  MeshConfigurationError, action, contextExtension, createHost, cron, plugin, route, subscription, worker, type Host, type Plugin, type Registration,
} from "@chimpbase/mesh";
import { makeHost } from "../support/host.js";

const idle = (): Host => createHost({ database: "postgres://localhost/none", server: false, logger: { level: "silent" } });
const nothing = (): void => undefined;

function refused(register: () => unknown, message: RegExp): void {
  assert.throws(register, (error) => error instanceof MeshConfigurationError && message.test(error.message));
}

const duplicates: readonly [string, () => Registration, RegExp][] = [
  ["action", () => action("x.y", nothing), /action "x\.y"/],
  ["route", () => route("home", () => null), /route "home"/],
  ["cron", () => cron("nightly", "0 3 * * *", nothing), /cron "nightly"/],
  ["worker", () => worker("mail", nothing), /worker of queue "mail"/],
  ["context extension", () => contextExtension("clock", nothing), /context extension "clock"/],
  ["plugin", () => plugin({ name: "inner" }), /plugin "inner"/],
  ["host extension", () => ({ kind: "host-extension", key: "mesh", value: {} }), /host extension "mesh"/],
];

for (const [kind, make, named] of duplicates) {
  test(`a duplicate ${kind} is refused, naming both sides, and nothing of that call is kept`, () => {
    const host = idle().register(plugin({ name: "one" }, make()));
    refused(() => host.register(plugin({ name: "two" }, make())), new RegExp(`${named.source}.*plugin "one".*plugin "two"`));
    refused(() => host.register(make()), new RegExp(`${named.source}.*plugin "one".*the application`));
    host.register(plugin({ name: "two" }));
    refused(() => idle().register(make(), make()), new RegExp(`${named.source}.*the application.*the application`));
  });
}

test("subscriptions may share an event", () => {
  idle().register(subscription("a", nothing), subscription("a", nothing));
});

test("illegal names, patterns and handlers are refused where they are written", () => {
  refused(() => action("", nothing), /name of an action/);
  refused(() => action("1x", nothing), /"1x"/);
  refused(() => action("a..b", nothing), /"a\.\.b"/);
  refused(() => worker("a b", nothing), /name of a queue/);
  refused(() => worker("a.*", nothing), /name of a queue/);
  refused(() => subscription("a.b*", nothing), /name of an event/);
  refused(() => cron("x".repeat(129), "* * * * *", nothing), /128/);
  refused(() => action("x", undefined as never), /action "x": the handler must be a function/);
  refused(() => contextExtension("db", nothing), /"db": this key is taken/);
  refused(() => contextExtension("get", nothing), /"get"/);
  refused(() => plugin({ name: "" }), /name of a plugin/);
  refused(() => idle().register({} as never), /an object, which is no registration.*services go into chimpbaseMesh/);
  refused(() => idle().register(class UsersService {} as never), /the function or class UsersService/);
  refused(() => idle().register([action("x", nothing)] as never), /registers an array/);
  for (const event of ["*", "**", "a.*", "a.**.b", "__x.y"]) subscription(event, nothing);
});

test("a missing dependency fails the start, naming both plugins", async () => {
  const host = idle().register(plugin({ name: "billing", dependsOn: ["users"] }));
  await assert.rejects(host.start(), { code: "CONFIGURATION", message: /"billing" depends on plugin "users"/ });
});

test("plugins that depend on each other in a circle fail the start, naming all of them", async () => {
  const host = idle().register(
    plugin({ name: "a", dependsOn: ["b"] }), plugin({ name: "b", dependsOn: ["c"] }), plugin({ name: "c", dependsOn: ["b"] }),
  );
  await assert.rejects(host.start(), { code: "CONFIGURATION", message: /circle: "b" → "c" → "b"/ });
});

test("a plugin is preceded by those it depends on; everything else keeps its order", async (t) => {
  const order: string[] = [];
  const named = (name: string, dependsOn: string[] = [], ...more: Registration[]): Plugin =>
    plugin({ name, dependsOn }, { kind: "lifecycle", name, ready: () => void order.push(name) }, ...more);
  const { host } = await makeHost(t, { server: false });
  host.register(named("first"), named("late", ["base", "nested"]), named("second"), named("base"), named("outer", [], named("nested")));
  await host.start();
  assert.deepEqual(order, ["first", "base", "nested", "late", "second", "outer"]);
});
