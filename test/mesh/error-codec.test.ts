import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as errors from "@chimpbase/mesh";
import type { Class } from "#mesh/contract/descriptor.js";
import { encodeError } from "#mesh/mesh/error-codec.js";
import { createErrorReviver } from "#mesh/mesh/error-revival.js";

const { MeshCallError, MeshError, MeshTimeoutError } = errors;
const origin = { nodeId: "n1", stacks: false };
const call = { action: "v1.a.x", nodeId: "n1" };

const encode = (thrown: unknown) => {
  const { status, body } = encodeError(thrown, origin);
  return { status, answer: JSON.parse(body) as Record<string, unknown> };
};
const travel = (thrown: unknown, classes: Class<Error>[] = []) => {
  const { status, answer } = encode(thrown);
  return createErrorReviver(classes)(answer, status, call) as errors.MeshError;
};

describe("every error of the mesh", () => {
  const samples: readonly errors.MeshError[] = [
    new errors.MeshNoAvailableNodeError("v1.a.x"), new MeshTimeoutError("v1.a.x", 5), new MeshCallError("failed"),
    new errors.MeshActionNotFoundError("v1.a.x"), new errors.MeshValidationError("bad", [{ path: "", message: "m", constraint: "c" }]),
    new errors.MeshUnauthorizedError(), new errors.MeshCancelledError("c"), new errors.MeshPayloadTooLargeError("p"),
    new errors.MeshOverloadedError("o"), new errors.MeshNoConsumerError("e"), new errors.MeshConfigurationError("c"),
    new errors.ServiceDefinitionError("s"), new MeshError("m", { code: "ANY", status: 409, retryable: true }),
  ];
  for (const sample of samples) {
    test(`survives the wire: ${sample.name}`, () => {
      const back = travel(sample);
      const fields = ({ name, message, code, status, retryable, data }: errors.MeshError) => ({ name, message, code, status, retryable, data });
      assert.deepEqual(fields(back), fields(sample));
      assert.ok(back instanceof (sample.constructor as typeof MeshError));
      assert.ok(back instanceof MeshError && back instanceof Error);
      assert.equal(back.nodeId, "n1");
      assert.equal(back instanceof MeshTimeoutError, sample instanceof MeshTimeoutError);
    });
  }
});

describe("what crosses the wire", () => {
  test("names the node where the error arose, not the ones that passed it on", () => {
    assert.equal(encode(new MeshError("m", { nodeId: "far" })).answer.nodeId, "far");
  });

  test("is a stack only where that is wanted", () => {
    assert.equal("stack" in encode(new Error("x")).answer, false);
    assert.match(JSON.parse(encodeError(new Error("x"), { nodeId: "n", stacks: true }).body).stack, /error-codec/);
  });

  const unserialisable: readonly [string, () => unknown][] = [
    ["circular", () => { const a: unknown[] = []; a.push(a); return a; }],
    ["a BigInt", () => ({ n: 1n })],
    ["a throwing getter", () => ({ get a() { throw new Error("getter"); } })],
    ["a throwing toJSON", () => ({ toJSON() { throw "no"; } })],
    ["a function", () => () => 1],
    ["too long", () => "x".repeat(70_000)],
    ["too deep", () => { let a: unknown = 1; for (let n = 0; n < 50_000; n++) a = [a]; return a; }],
    ["a revoked proxy", () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy; }],
  ];
  for (const [what, make] of unserialisable) {
    test(`is everything but data that is ${what}`, () => {
      const { answer } = encode(Object.assign(new Error("m"), { code: "C", data: make() }));
      assert.equal(answer.error, "m");
      assert.equal(answer.code, "C");
      assert.equal("data" in answer, false);
      assert.equal(typeof answer.dataDropped, "string");
    });
  }

  const strange: readonly [string, () => unknown][] = [
    ["a proxy that throws", () => new Proxy(new Error("m"), { get() { throw new Error("trap"); } })],
    ["an error with throwing getters", () => Object.defineProperties(new Error("m"), { name: { get() { throw 1; } }, code: { get() { throw 2; } }, message: { get() { throw 3; } } })],
    ["an error with fields of wrong types", () => Object.assign(new Error("m"), { name: 1, code: {}, retryable: "yes", status: "x", nodeId: [], message: {} })],
    ["a symbol", () => Symbol("s")], ["null", () => null], ["undefined", () => undefined], ["a number", () => 42], ["a BigInt", () => 1n],
    ["a function", () => () => 1], ["an object without prototype", () => Object.create(null)],
    ["a long message", () => new Error("x".repeat(1_000_000))],
  ];
  for (const [what, make] of strange) {
    test(`is an answer whatever was thrown: ${what}`, () => {
      const { status, answer } = encode(make());
      assert.equal(answer.ok, false);
      assert.equal(typeof answer.error, "string");
      assert.ok(status >= 400 && status < 600);
      assert.ok(JSON.stringify(answer).length < 200_000);
      assert.ok(travel(make()) instanceof Error);
    });
  }

  test("keeps a plain object thrown in place of an error", () => {
    const back = travel({ message: "m", code: "C", data: 1 });
    assert.deepEqual([back.message, back.code, back.data], ["m", "C", 1]);
  });

  test("keeps null and falsy data", () => {
    for (const data of [null, 0, "", false]) assert.equal(travel(Object.assign(new Error("m"), { data })).data, data);
  });

  test("says retryable only where the error does", () => {
    assert.equal("retryable" in encode(new Error("x")).answer, false);
    assert.equal(travel(new Error("x")).retryable, true);
    assert.equal(travel(Object.assign(new Error("x"), { retryable: false })).retryable, false);
  });
});

describe("a user's class", () => {
  let constructed = 0;
  class Rich extends Error {
    declare data: unknown;
    constructor(need: { deep: { value: string } }) { super(need.deep.value); constructed++; this.name = "RichError"; }
    get code(): string { return "FROM_GETTER"; }
    shout(): string { return this.message.toUpperCase(); }
  }
  class Derived extends MeshError {}

  test("is revived with its methods, over accessors that cannot be set, and without its constructor", () => {
    const original = Object.assign(new Rich({ deep: { value: "v" } }), { data: [1], status: 409 });
    constructed = 0;
    const back = travel(original, [Rich]) as unknown as Rich & { status: number; nodeId: string };
    assert.ok(back instanceof Rich);
    assert.deepEqual([back.shout(), back.name, back.code, back.data, back.status, back.nodeId, constructed], ["V", "RichError", "FROM_GETTER", [1], 409, "n1", 0]);
  });

  test("below MeshError keeps status and retryable", () => {
    const back = travel(new Derived("d", { code: "D", status: 418, retryable: true }), [Derived]);
    assert.ok(back instanceof Derived);
    assert.deepEqual([back.code, back.status, back.retryable], ["D", 418, true]);
  });

  test("that is not listed is a MeshCallError under its name, or the mesh class that it extends", () => {
    const unknown = travel(new Rich({ deep: { value: "v" } }));
    assert.ok(unknown instanceof MeshCallError);
    assert.deepEqual([unknown.name, unknown.code, unknown.status], ["RichError", "FROM_GETTER", 500]);
    assert.equal(travel(new Derived("d", { code: "D" })).code, "D");
  });

  test("cannot be conjured up from the names of JavaScript itself", () => {
    for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const error = createErrorReviver([])({ ok: false, error: "m", name, type: name }, 500, call);
      assert.ok(error instanceof MeshCallError);
      assert.equal(error.name, name);
    }
  });
});

test("an answer of wrong shapes is an error all the same", () => {
  for (const answer of [{}, { error: { message: "x" } }, { error: 1, name: 2, code: {}, retryable: 1, nodeId: {}, status: "x", stack: 5 }]) {
    const error = createErrorReviver([])({ ok: false, ...answer }, 500, call) as errors.MeshError;
    assert.ok(error instanceof MeshCallError);
    assert.deepEqual([error.code, error.nodeId, error.status], ["CALL_FAILED", "n1", 500]);
    assert.match(error.message, /without a message/);
  }
});
