import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError, ServiceDefinitionError } from "@chimpbase/mesh";
import { NodeServices } from "#mesh/mesh/services.js";
import type { ContextServices } from "#mesh/host/context.js";
import { HostDispatcher } from "#mesh/host/dispatcher.js";
import { RegisteredService } from "#mesh/mesh/registered-service.js";
import { Action, Event, Service } from "#mesh/service/decorators.js";
import { service } from "#mesh/service/definition.js";
import { instantiate } from "#mesh/service/describe.js";
import type { Context, ServiceSelf } from "#mesh/contract/context.js";
import { until } from "../support/wait.js";
import { schema } from "./mesh-fixture.js";
import type { Dispatcher, ScopedContext, Target } from "#mesh/contract/registration.js";

@Service("users")
class UsersService {
  constructor(readonly prefix = "default") {}
  @Action({ timeoutMs: 50, retry: { attempts: 2 } }) create() { return this.prefix; }
  @Event("user.deleted") deleted() {}
  @Event("order.paid", { balanced: true, maxAttempts: 3 }) paid() {}
  @Event("order.sent", { balanced: true, group: "mail", concurrency: 2, transaction: false }) sent() {}
}

const ctx = { mesh: { nodeId: () => "node-1", call: (...args: unknown[]) => ["call", ...args], emit: (...args: unknown[]) => ["emit", ...args] } };
const context = ctx as unknown as ScopedContext;
const dispatcher = {
  dispatch: async (target: Target, args: unknown) => target.handler(context, args),
  rootScope: () => ({}),
} as unknown as Dispatcher;

test("actions are found by full name, with what they declare", async () => {
  const services = new NodeServices({});
  services.add(services.prepare([UsersService]));
  const found = services.find("v1.users.create");
  assert.equal(found?.name, "v1.users.create");
  assert.deepEqual([found.timeoutMs, found.retry], [50, { attempts: 2 }]);
  assert.equal(await found.target.handler(context, {}), "default");
  assert.equal(services.find("v1.users.deleted"), undefined);
  assert.ok(services.serves("v1.users") && !services.serves("v2.users"));
  assert.deepEqual(services.infos(), [{
    name: "users", version: 1, actions: ["v1.users.create"], events: ["user.deleted", "order.paid", "order.sent"],
    calls: { "v1.users.create": { timeoutMs: 50, retry: { attempts: 2 } } },
  }]);
});

test("events become deliveries: broadcast, or balanced to the service's group unless told otherwise", () => {
  const { events } = new RegisteredService(instantiate(UsersService));
  assert.deepEqual(events.map(({ target, ...rest }) => ({ ...rest, name: target.name, target: target.kind })), [
    { kind: "broadcast", pattern: "user.deleted", name: "v1.users:user.deleted", target: "subscription" },
    { kind: "balanced", group: "users", pattern: "order.paid", options: { maxAttempts: 3 }, name: "v1.users:order.paid", target: "job" },
    { kind: "balanced", group: "mail", pattern: "order.sent", options: { concurrency: 2, transaction: false }, name: "v1.users:order.sent", target: "job" },
  ]);
});

test("resolve makes the instances, once each", async () => {
  let made = 0;
  const resolve = (type: new () => object) => {
    made++;
    return type === (UsersService as never) ? new UsersService("injected") : new type();
  };
  const services = new NodeServices({ resolve });
  services.add(services.prepare([UsersService]));
  assert.equal(await services.find("v1.users.create")!.target.handler(context, {}), "injected");
  assert.equal(made, 1);
});

test("two services of one name and version are refused, naming both", () => {
  const services = new NodeServices({});
  const twin = service({ name: "users", version: 1, actions: { create: async () => 1 } });
  assert.throws(() => services.prepare([UsersService, twin]), (error: Error) => {
    assert.ok(error instanceof ServiceDefinitionError);
    assert.match(error.message, /v1\.users.*class UsersService.*service\(/);
    return true;
  });
  services.add(services.prepare([UsersService]));
  assert.throws(() => services.prepare([new UsersService()]), /class UsersService.*instance of UsersService/);
  services.add(services.prepare([service({ name: "users", version: 2, actions: {} })]));
});

test("two services whose dotted names meet in one action are refused", () => {
  const services = new NodeServices({});
  const a = service({ name: "a", version: 1, actions: { "b.c": async () => 1 } });
  const b = service({ name: "a.b", version: 1, actions: { c: async () => 1 } });
  assert.throws(() => services.prepare([a, b]), /"v1\.a\.b\.c" is given twice/);
});

test("self carries the service, and its call and emit are those of the handler's context", async () => {
  const probe = service({
    name: "probe", version: 3, settings: { limit: 5 },
    methods: { double: (n: number) => n * 2 },
    actions: {
      look: async (_ctx: Context, _args: unknown, self) => {
        const { call, emit } = self as ServiceSelf;
        return [self.name, self.version, self.nodeId, self.settings.limit, self.methods.double(4), call("a", 1), emit("e", 2)];
      },
    },
  });
  const services = new NodeServices({});
  services.add(services.prepare([probe]));
  const seen = (await services.find("v3.probe.look")!.target.handler(context, {})) as unknown[];
  assert.deepEqual(seen.slice(0, 5), ["probe", 3, "node-1", 5, 8]);
  assert.deepEqual(seen.slice(5), [["call", "a", 1, undefined], ["emit", "e", 2, undefined]]);
});

test("a service is idle when its calls have ended, from their validation on", async () => {
  const held: (() => void)[] = [];
  const hold = () => new Promise<void>((resolve) => held.push(resolve));
  const slow = service({
    name: "slow", version: 1,
    actions: { wait: { params: schema(async (value) => (await hold(), value)), handler: async () => { await hold(); return "done"; } } },
  });
  const registered = new RegisteredService(instantiate(slow));
  await registered.idle();
  const dispatcher = new HostDispatcher({} as ContextServices, []);
  const underWay = dispatcher.dispatch(registered.actions[0]!.target, {}, dispatcher.rootScope());
  let idle = false;
  const whenIdle = registered.idle().then(() => (idle = true));
  for (const step of [1, 2]) {
    await until(() => held.length === step);
    assert.equal(idle, false);
    held[step - 1]!();
  }
  assert.equal(await underWay, "done");
  await whenIdle;
});

test("a withdrawn service still runs but is told to nobody; removed, it is gone", () => {
  const services = new NodeServices({});
  services.add(services.prepare([UsersService]));
  const selected = services.select(["v1.users"]);
  services.withdraw(selected);
  assert.deepEqual(services.infos(), []);
  assert.ok(services.find("v1.users.create"));
  services.restore(selected);
  assert.equal(services.infos().length, 1);
  services.remove(selected);
  assert.equal(services.find("v1.users.create"), undefined);
});

test("an unknown service is refused with those there are", () => {
  const services = new NodeServices({});
  services.add(services.prepare([UsersService]));
  assert.throws(() => services.select(["v1.user"]), (error: Error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, /"v1\.user" is not registered.*did you mean "v1\.users"/);
    return true;
  });
});

test("all stopped hooks run, whichever throws", async () => {
  const ran: string[] = [];
  const base = service({ name: "base", version: 1, stopped: async () => void ran.push("base") });
  const derived = service({ name: "derived", version: 1, mixins: [base], stopped: async () => { ran.push("derived"); throw new Error("broken"); } });
  await assert.rejects(new RegisteredService(instantiate(derived)).stop(dispatcher), /broken/);
  assert.deepEqual(ran, ["derived", "base"]);
});
