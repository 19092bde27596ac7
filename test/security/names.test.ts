import assert from "node:assert/strict";
import { test } from "node:test";
import {
  Action, MeshActionNotFoundError, MeshConfigurationError, MeshNoAvailableNodeError, Service, ServiceDefinitionError,
  action, contextExtension, describe as describeService, onStart, route, service, subscription, worker,
} from "@chimpbase/mesh";
import type { CallOptions, Context } from "@chimpbase/mesh";
import { compilePattern, patternToRegex } from "#mesh/runtime/event-pattern.js";
import { rewritePlaceholders } from "#mesh/storage/placeholders.js";
import { post } from "../mesh/rpc-fixture.js";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { until } from "../support/wait.js";

/** Names that every object answers to. */
const INHERITED = ["constructor", "toString", "hasOwnProperty", "valueOf", "isPrototypeOf"];
const REFUSED = [...INHERITED.map((name) => `v1.${name}`), ...INHERITED, "__proto__", "v1.__proto__.x", "v1.constructor.constructor", "v1.t.__proto__", "v1.t.constructor", "v1.t.toString", "v1.t", "v01.t.ok", "V1.t.ok", "v1.t.ok ", "v1..t.ok", "v1.t.ok\u0000"];

const t = service({ name: "t", version: 1, actions: { ok: async () => "ok" } });

test("names that every object has name no action, service or peer that nobody registered", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([t]);
  const node = { port: Number(new URL(host.url!).port) };
  for (const actionName of REFUSED) {
    const reply = await post(node, { actionName }, { token: "t0ken" });
    assert.deepEqual([actionName, reply.status, reply.json["code"]], [actionName, 404, "ACTION_NOT_FOUND"]);
    await assert.rejects(host.mesh.call(actionName), MeshNoAvailableNodeError);
  }
  for (const name of INHERITED) await assert.rejects(host.mesh.waitFor(`v1.${name}`, { timeoutMs: 20 }));
  for (const strategy of [...INHERITED, "__proto__"]) await assert.rejects(host.mesh.call("v1.t.ok", {}, { strategy } as unknown as CallOptions), MeshConfigurationError);
});

test("services, actions, events, queues and groups may bear such names, and are what was registered", async () => {
  await using mesh = await MeshFixture.open();
  const heard: string[] = [];
  const handlers = Object.fromEntries(INHERITED.map((name) => [name, async () => name]));
  const events = Object.fromEntries(INHERITED.map((name) => [name, () => void heard.push(name)]));
  const odd = INHERITED.map((name) => service({ name, version: 1, actions: handlers, events }));
  const host = mesh.host(odd).register(
    ...[...INHERITED, "__proto__"].map((name) => subscription(name, () => void heard.push(`sub ${name}`))),
    ...[...INHERITED, "__proto__"].map((name) => worker(name, () => void heard.push(`job ${name}`))),
    ...[...INHERITED, "__proto__"].map((name) => action(name, () => `host ${name}`)),
    onStart(async (ctx) => {
      for (const name of [...INHERITED, "__proto__"]) {
        assert.equal(await ctx.action(name), `host ${name}`);
        await ctx.queue.enqueue(name, {});
      }
    }),
  );
  await host.start();
  const other = await mesh.started([t]);
  await other.mesh.waitFor(INHERITED.map((name) => `v1.${name}`));
  for (const name of INHERITED) {
    for (const member of INHERITED) assert.equal(await other.mesh.call(`v1.${name}.${member}`), member);
    await other.mesh.emit(name, {});
  }
  await other.mesh.emit("__proto__", {});
  await until(() => heard.length === INHERITED.length * (INHERITED.length + 2) + 2);
});

test("what cannot be a name is refused where it is declared", () => {
  for (const name of ["__proto__", "", ".", "a..b", "a b", "a\n", "a\u0000", "é", "-a", "a.", "x".repeat(129)]) {
    assert.throws(() => describeService(service({ name, version: 1 })), ServiceDefinitionError, name);
    assert.throws(() => describeService(service({ name: "a", version: 1, actions: { [name]: async () => 1 } })), ServiceDefinitionError, name);
  }
  for (const key of ["__proto__", "constructor", "then", "db", "scope", ""]) assert.throws(() => contextExtension(key, () => 1), MeshConfigurationError);
  assert.throws(() => contextExtension(null as unknown as string, () => 1), MeshConfigurationError);
});

test("secrets and the bag of a request hold no name that nobody put there", async () => {
  await using mesh = await MeshFixture.open();
  const found: unknown[] = [];
  const host = mesh.host([t]).register(
    onStart((ctx) => { for (const name of [...INHERITED, "__proto__"]) found.push(ctx.secret(name)); }),
    onStart((ctx) => { for (const name of ["../MESH_TOKEN", "a/b", "", "a\u0000", ".."]) assert.throws(() => ctx.secret(name), MeshConfigurationError); }),
    route("bag", (_request, env) => Response.json([...INHERITED, "__proto__"].map((name) => env.get(name) ?? null))),
  );
  await host.start();
  assert.deepEqual(found, found.map(() => null));
  const answer = await fetch(host.url!, { headers: { constructor: "x", toString: "x", hasOwnProperty: "x", __proto__: "x" } as unknown as Record<string, string> });
  assert.deepEqual(await answer.json(), INHERITED.concat("__proto__").map(() => null));
});

@Service("typed")
class Typed { @Action() ok(_ctx: Context) { return 1; } }

test("a typed client has no member that is no action", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([Typed]);
  const client = host.mesh.service(Typed) as unknown as Record<string, (() => Promise<unknown>) | undefined>;
  for (const member of [...INHERITED, "__proto__", "then", "toJSON"]) assert.equal(client[member], undefined);
  await assert.rejects(client["other"]!(), MeshActionNotFoundError);
});

test("no name, pattern, statement or path takes more than moments to read", () => {
  const attacks: (() => unknown)[] = [
    () => compilePattern(`${"**.a.".repeat(25)}b`)("a.".repeat(5_000)),
    () => compilePattern("*.".repeat(60))("a.".repeat(5_000)),
    () => patternToRegex("**.".repeat(40)),
    () => rewritePlaceholders(`?1 ${"$".repeat(100_000)}`),
    () => rewritePlaceholders(`?1 ${"/*".repeat(100_000)}`),
    () => rewritePlaceholders(`?1 ${"'".repeat(100_001)}`),
    () => rewritePlaceholders(`?1 ${"a".repeat(100_000)}`),
    () => rewritePlaceholders(`?1 ${"$a".repeat(50_000)}`),
    () => assert.throws(() => describeService(service({ name: `${"a.".repeat(50_000)}!`, version: 1 }))),
    () => assert.throws(() => action(`${"a".repeat(100_000)}!`, () => 1)),
  ];
  for (const attack of attacks) {
    const before = performance.now();
    attack();
    assert.ok(performance.now() - before < 2_000, attack.toString());
  }
});
