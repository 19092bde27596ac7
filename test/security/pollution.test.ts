import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { Action, MeshCallError, Service, ServiceDefinitionError, describe as describeService, route, service } from "@chimpbase/mesh";
import type { Context } from "@chimpbase/mesh";
import { Transform, Type } from "class-transformer";
import { IsInt, IsObject, IsOptional, ValidateNested } from "class-validator";
import * as v from "valibot";
import { z } from "zod";
import { parseMetadata } from "#mesh/mesh/metadata.js";
import { createErrorReviver } from "#mesh/mesh/error-revival.js";
import { groupLane } from "#mesh/storage/lanes.js";
import { post } from "../mesh/rpc-fixture.js";
import { MeshFixture } from "../mesh/mesh-fixture.js";
import { until } from "../support/wait.js";

/** As text: what JSON.parse makes of it are own keys. */
const EVIL = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"prototype":{"polluted":1},"a":1}';
const evil = (): Record<string, unknown> => JSON.parse(EVIL) as Record<string, unknown>;
const NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

afterEach(() => {
  for (const prototype of [Object.prototype, Array.prototype, Function.prototype, Error.prototype, Map.prototype]) {
    assert.deepEqual(Object.keys(prototype), []);
  }
  assert.equal((({}) as { polluted?: unknown }).polluted, undefined);
  assert.equal(((() => 0) as { polluted?: unknown }).polluted, undefined);
});

class Inner { @IsInt() a!: number; }
class Plain {
  @IsInt() a!: number;
  @IsOptional() @ValidateNested() @Type(() => Inner) inner?: Inner;
}
class Transformed {
  @Transform(({ value }) => Number(value)) @IsInt() a!: number;
  @IsOptional() @ValidateNested() @Type(() => Inner) inner?: Inner;
  @IsOptional() @IsObject() anything?: object;
}

const seen: { args: unknown; meta: object }[] = [];
const note = (ctx: Context, args: unknown): string[] => {
  seen.push({ args, meta: ctx.meta });
  return Object.getOwnPropertyNames(args);
};

@Service("dto")
class DtoService {
  @Action({ params: Plain }) plain(ctx: Context, args: Plain) { return note(ctx, args); }
  @Action({ params: Transformed }) transformed(ctx: Context, args: Transformed) { return note(ctx, args); }
}
const schemas = service({
  name: "schemas", version: 1,
  actions: {
    bare: note,
    zod: { params: z.looseObject({ a: z.number() }), handler: note },
    zodRecord: { params: z.record(z.string(), z.unknown()), handler: note },
    valibot: { params: v.looseObject({ a: v.number() }), handler: note },
    fail: async () => { throw Object.assign(new Error("no"), { data: evil(), code: "E" }); },
  },
});

test("keys of prototypes in arguments and meta reach no prototype, on any path of validation", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([DtoService, schemas]);
  const node = { port: Number(new URL(host.url!).port) };
  const nested = `{"a":1,"inner":${EVIL},"anything":${EVIL},"__proto__":{"polluted":1}}`;
  for (const action of ["dto.plain", "dto.transformed", "schemas.bare", "schemas.zod", "schemas.zodRecord", "schemas.valibot"]) {
    for (const args of [EVIL, nested, `[${EVIL}]`]) {
      const reply = await post(node, `{"actionName":"v1.${action}","args":${args},"meta":${EVIL},"__proto__":{"polluted":1}}`, { token: "t0ken" });
      assert.ok([200, 422].includes(reply.status), `${action} ${reply.text}`);
    }
  }
  assert.ok(seen.length >= 12);
  for (const { args, meta } of seen) {
    assert.equal(Object.hasOwn(meta, "__proto__"), false);
    assert.equal((meta as { polluted?: unknown }).polluted, undefined);
    assert.equal((args as { polluted?: unknown }).polluted, undefined);
    for (const [type, names] of [[Plain, ["a", "inner"]], [Transformed, ["a", "inner", "anything"]]] as const) {
      if (!(args instanceof type)) continue;
      assert.equal(Object.getPrototypeOf(args), type.prototype);
      assert.deepEqual(Object.getOwnPropertyNames(args).filter((name) => !(names as readonly string[]).includes(name)), []);
      if (args.inner !== undefined) assert.deepEqual([Object.getPrototypeOf(args.inner), Object.keys(args.inner)], [Inner.prototype, ["a"]]);
    }
  }
});

test("keys of prototypes in events, in jobs, and in rows that somebody forged, reach no prototype and no meta", async () => {
  await using mesh = await MeshFixture.open();
  const got: { payload: Record<string, unknown>; meta: object }[] = [];
  const take = (ctx: Context, payload: Record<string, unknown>): void => void got.push({ payload, meta: ctx.meta });
  const host = await mesh.started([service({ name: "takes", version: 1, events: { "a.b": take, "a.*": { balanced: true, handler: take } } })]);
  await host.mesh.emit("a.b", evil());
  const meta = `{"__proto__":{"polluted":1},"kept":1}`;
  await mesh.query("INSERT INTO _chimpbase_mesh_events (node_id, events) VALUES ('forger', $1)", [`[["1","a.b",${EVIL},"r",${meta}],["2","a.b",{},"r","no meta"],["3","a.b",{},"r",null]]`]);
  await mesh.query(
    `WITH job AS (
       INSERT INTO _chimpbase_mesh_jobs (id, lane, queue, grp, event, payload, headers)
       VALUES (-1, $1, $2, 'takes', 'a.b', $3, $4), (-2, $1, $2, 'takes', 'a.b', $3, '{"meta":[1]}') RETURNING lane, id)
     INSERT INTO _chimpbase_mesh_ready (lane, id) SELECT lane, id FROM job`,
    [groupLane("takes", "a.*"), "__chimpbase.mesh.balanced.a.b", EVIL, `{"meta":${meta}}`],
  );
  // Says that there is something to read.
  await host.mesh.emit("a.b", evil());
  await until(() => got.length >= 9);
  assert.equal(got.length, 9);
  for (const { payload, meta: received } of got) {
    assert.deepEqual([typeof received, Object.hasOwn(received, "__proto__"), (received as { polluted?: unknown }).polluted], ["object", false, undefined]);
    assert.equal(payload["polluted"], undefined);
  }
});

test("keys of prototypes in a peer's row make peers of it, and nothing else", async () => {
  await using mesh = await MeshFixture.open();
  const host = await mesh.started([service({ name: "caller", version: 1 })], { heartbeatMs: 100, offlineAfterMs: 60_000 });
  const services = `[{"name":"s","version":1,"actions":["v1.s.a","__proto__","constructor"],"events":["__proto__"],"calls":{"__proto__":{"timeoutMs":1},"constructor":{"timeoutMs":1}},"__proto__":{"polluted":1}},{"__proto__":{"name":"t","version":1}}]`;
  await mesh.query(`INSERT INTO _chimpbase_mesh_nodes VALUES ('evil', 'http://127.0.0.1:1', $1, $2, ${NOW}, ${NOW})`, [`{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"$mesh":{"__proto__":{"rpcPath":"/x","draining":true},"constructor":1}}`, services]);
  const peer = await until(() => host.mesh.peers().find(({ nodeId }) => nodeId === "evil"));
  assert.deepEqual([Object.keys(peer.metadata), peer.services.map(({ name }) => name)], [["constructor"], ["s"]]);
  assert.equal(parseMetadata('{"$mesh":{"__proto__":{"rpcPath":"/x"}}}')?.rpcPath, "/__chimpbase/mesh/rpc");
  await assert.rejects(host.mesh.call("v1.s.a"), MeshCallError);
});

test("keys of prototypes in settings are refused, or stay plain keys", () => {
  const base = service({ name: "base", version: 1, settings: { constructor: { prototype: { polluted: 1 } }, prototype: { polluted: 1 } } });
  const merged = describeService(service({ name: "top", version: 1, mixins: [base], settings: { constructor: { prototype: { more: 1 } } } }));
  assert.deepEqual(merged.settings, { constructor: { prototype: { polluted: 1, more: 1 } }, prototype: { polluted: 1 } });
  for (const settings of [evil(), { deep: [evil()] }]) assert.throws(() => describeService(service({ name: "x", version: 1, settings })), ServiceDefinitionError);
});

test("keys of prototypes in the error of a peer reach no prototype", async () => {
  await using mesh = await MeshFixture.open();
  const [a] = await Promise.all([mesh.started([service({ name: "caller", version: 1 })]), mesh.started([schemas])]);
  await a.mesh.waitFor("v1.schemas");
  const error = await a.mesh.call("v1.schemas.fail").catch((thrown: unknown) => thrown) as MeshCallError;
  assert.deepEqual([error instanceof MeshCallError, Object.keys(error.data as object), (error.data as { polluted?: unknown }).polluted], [true, ["__proto__", "constructor", "prototype", "a"], undefined]);
  const revive = createErrorReviver([]);
  for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty", "Object", "Function"]) {
    const revived = revive(JSON.parse(`{"ok":false,"error":"e","name":"${name}","type":"${name}","code":"${name}","data":${EVIL},"__proto__":{"polluted":1},"status":"__proto__"}`) as object as Record<string, unknown>, 500, { action: "v1.a.x", nodeId: "n" });
    assert.ok(revived instanceof MeshCallError);
  }
});

test("keys of prototypes in a query string reach no prototype", async () => {
  await using mesh = await MeshFixture.open();
  const host = mesh.host([schemas]).register(route("query", (request) => Response.json(Object.fromEntries(new URL(request.url).searchParams))));
  await host.start();
  const answer = await fetch(`${host.url}/?__proto__=1&__proto__[polluted]=1&constructor.prototype.polluted=1&a=1`);
  assert.deepEqual(Object.keys(await answer.json() as object), ["__proto__", "__proto__[polluted]", "constructor.prototype.polluted", "a"]);
});
