import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import * as decorators from "#mesh/service/decorators.js";
import { actionNames, describe, instantiate } from "#mesh/service/describe.js";
import { service, ServiceDefinitionError, type ServiceDescriptor } from "@chimpbase/mesh";

type Factory = (...args: unknown[]) => ((...application: unknown[]) => void) | undefined;

const junk = fc.anything({
  key: fc.oneof(fc.constantFrom("name", "handler", "params", "actions", "__proto__", "constructor", "~standard", "then", "retry", "balanced"), fc.string()),
  values: [fc.string(), fc.integer(), fc.double(), fc.boolean(), fc.constantFrom(null, undefined, () => 1, class A {}, Symbol("s"), 5n)],
  withBigInt: true, withDate: true, withMap: true, withSet: true, withNullPrototype: true, withObjectString: true, withSparseArray: true, withBoxedValues: true,
});
const names = fc.oneof(fc.constantFrom("a", "b", "order.*", "__proto__", "toString", "constructor", ""), fc.string());
const table = fc.dictionary(names, fc.oneof(junk, fc.constant(() => 1), fc.record({ handler: fc.constant(() => 1), balanced: junk, timeoutMs: junk, name: names }, { requiredKeys: [] })));
const definition = fc.record(
  { name: fc.oneof(fc.constant("s"), junk), version: fc.oneof(fc.constant(1), junk), settings: junk, mixins: fc.oneof(junk, fc.array(junk)), methods: table, actions: table, events: table, started: junk, stopped: junk },
  { requiredKeys: [] },
);

/** Whatever comes in: a frozen descriptor, or the one error. */
function holds(make: () => ServiceDescriptor): void {
  let descriptor;
  try {
    descriptor = make();
  } catch (error) {
    assert.ok(error instanceof ServiceDefinitionError, error as Error);
    return;
  }
  assert.ok(Object.isFrozen(descriptor));
  assert.equal(describe(descriptor), descriptor);
  assert.ok([...Object.values(descriptor.actions), ...Object.values(descriptor.events)].every((entry) => Object.isFrozen(entry) && typeof entry.handler === "function"));
}

test("anything given to describe is described or refused with ServiceDefinitionError", () => {
  fc.assert(fc.property(junk, (value) => holds(() => describe(value as object))), { numRuns: 500 });
});

test("anything given to service is described or refused with ServiceDefinitionError", () => {
  fc.assert(fc.property(fc.oneof(definition, junk), (value) => holds(() => service(value as never))), { numRuns: 500 });
});

test("decorators with any arguments, anywhere, write at most a mistake", () => {
  const factories = Object.values(decorators) as unknown as Factory[];
  const use = fc.record({ factory: fc.constantFrom(...factories), args: fc.array(fc.oneof(junk, names, fc.constant(false)), { maxLength: 3 }), key: fc.oneof(fc.constantFrom("list", "find"), junk), third: fc.oneof(fc.constant(undefined), junk) });
  fc.assert(fc.property(fc.array(use, { maxLength: 4 }), (uses) => {
    class Users { list() {} find() {} }
    for (const { factory, args, key, third } of uses) {
      factory(...args)?.(Users.prototype, key, third);
      factory(...args)?.(third, key);
    }
    decorators.Service("users")(Users);
    holds(() => describe(Users));
    try {
      actionNames(Users);
      instantiate(Users);
    } catch (error) {
      assert.ok(error instanceof ServiceDefinitionError, error as Error);
    }
  }), { numRuns: 500 });
  assert.equal(({} as { polluted?: unknown }).polluted, undefined);
});
