import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError } from "@chimpbase/mesh";
import { resolveMeshOptions } from "#mesh/mesh/options.js";
import type { MeshOptions } from "#mesh/mesh/options.js";

class Thing {}
const base = { services: [Thing], meshToken: "MESH_TOKEN" } satisfies MeshOptions;
const resolve = (more: object, environment: NodeJS.ProcessEnv = {}) => resolveMeshOptions({ ...base, ...more } as MeshOptions, environment);

function refused(more: object, message: RegExp, environment: NodeJS.ProcessEnv = {}): void {
  assert.throws(() => resolve(more, environment), (error: Error) => {
    assert.ok(error instanceof MeshConfigurationError);
    assert.match(error.message, message);
    return true;
  });
}

test("defaults are those of the contract", () => {
  const { services, resolve: make, ...rest } = resolve({});
  assert.deepEqual(services, [Thing]);
  assert.equal(make, undefined);
  assert.deepEqual(rest, {
    transport: "http",
    advertisedUrl: null,
    tokenSecrets: ["MESH_TOKEN"],
    rpcAuth: "token",
    rpcPath: "/__chimpbase/mesh/rpc",
    heartbeatMs: 10_000,
    offlineAfterMs: 30_000,
    gcAfterMs: 600_000,
    defaultStrategy: "local-first",
    defaultTimeoutMs: 5_000,
    defaultRetries: 0,
    middleware: [],
    meta: {},
    errors: [],
    maxBodyBytes: 1_048_576,
    maxInFlight: 5_000,
    tls: {},
    allowedPeers: null,
  });
});

test("services are required, at least one", () => {
  refused({ services: undefined }, /services/);
  refused({ services: [] }, /at least one/);
  refused({ services: Thing }, /services/);
});

test("an unknown option is refused with the nearest known one", () => {
  refused({ hartbeatMs: 5 }, /unknown mesh option "hartbeatMs"; did you mean "heartbeatMs"/);
  refused({ completelyElse: 5 }, /known are: services/);
});

test("heartbeat, offline and gc times must double from one to the next, and the error gives both values", () => {
  refused({ heartbeatMs: 20_000 }, /offlineAfterMs \(30000\) must be at least twice heartbeatMs \(20000\)/);
  refused({ offlineAfterMs: 400_000 }, /gcAfterMs \(600000\) must be at least twice offlineAfterMs \(400000\)/);
  assert.equal(resolve({ heartbeatMs: 15_000 }).heartbeatMs, 15_000);
});

test("times and counts that make no sense are refused by name and value", () => {
  refused({ heartbeatMs: 0 }, /heartbeatMs cannot be 0/);
  refused({ defaultTimeoutMs: -1 }, /defaultTimeoutMs cannot be -1/);
  refused({ defaultTimeoutMs: Number.NaN }, /defaultTimeoutMs cannot be NaN/);
  refused({ defaultRetries: 1.5 }, /defaultRetries cannot be 1.5/);
  refused({ gcAfterMs: 2 ** 40 }, /gcAfterMs/);
});

test("http needs a token; local-only needs neither token nor URL", () => {
  refused({ meshToken: undefined }, /meshToken is missing/);
  refused({ meshToken: "" }, /meshToken/);
  refused({ meshToken: [] }, /meshToken/);
  refused({ meshToken: ["A", 5] }, /meshToken/);
  assert.deepEqual(resolve({ meshToken: ["NEW", "OLD"] }).tokenSecrets, ["NEW", "OLD"]);
  const local = resolve({ meshToken: undefined, transport: "local-only", rpcAuth: "signed" });
  assert.deepEqual([local.tokenSecrets, local.advertisedUrl], [[], null]);
});

test("the advertised URL is http or https, without credentials, query or fragment", () => {
  assert.equal(resolve({ advertisedUrl: "http://api:3000/" }).advertisedUrl, "http://api:3000");
  assert.equal(resolve({ advertisedUrl: "https://api.example/mesh/" }).advertisedUrl, "https://api.example/mesh");
  refused({ advertisedUrl: "ftp://api" }, /http: and https:/);
  refused({ advertisedUrl: "api:3000" }, /advertisedUrl/);
  refused({ advertisedUrl: "nonsense" }, /no absolute URL/);
  refused({ advertisedUrl: "http://api/?a=1" }, /end with the path/);
});

test("a refused URL is not repeated in the error, since it may hold a password", () => {
  assert.throws(() => resolve({ advertisedUrl: "http://me:s3cret@api:3000" }), (error: Error) => {
    assert.match(error.message, /credentials/);
    assert.doesNotMatch(error.message, /s3cret/);
    return true;
  });
});

test("the environment gives the advertised URL where the options do not", () => {
  const environment = { CHIMPBASE_MESH_ADVERTISED_URL: "http://from-env:1" };
  assert.equal(resolve({}, environment).advertisedUrl, "http://from-env:1");
  assert.equal(resolve({ advertisedUrl: "http://given:1" }, environment).advertisedUrl, "http://given:1");
  refused({}, /CHIMPBASE_MESH_ADVERTISED_URL/, { CHIMPBASE_MESH_ADVERTISED_URL: "gopher://x" });
});

test("rpcPath is an absolute path in normal form", () => {
  assert.equal(resolve({ rpcPath: "/rpc" }).rpcPath, "/rpc");
  for (const path of ["rpc", "//evil/rpc", "/a/../b", "/a?b", "/a#b", "/a b", ""]) refused({ rpcPath: path }, /rpcPath/);
});

test("strategy, transport, middleware, errors, resolve and meta are checked", () => {
  refused({ defaultStrategy: "fastest" }, /"fastest".*"round-robin"/);
  refused({ transport: "grpc" }, /"local-only"/);
  refused({ rpcAuth: "mtls" }, /rpcAuth cannot be "mtls": use one of "token", "signed"/);
  refused({ middleware: ["log"] }, /middleware/);
  refused({ errors: [Thing] }, /errors cannot be function Thing/);
  refused({ resolve: {} }, /resolve/);
  refused({ meta: [1] }, /meta must be a JSON object/);
  refused({ meta: { $mesh: 1 } }, /\$mesh/);
  refused({ meta: { big: "x".repeat(70_000) } }, /larger than/);
  const circular: Record<string, unknown> = {};
  circular["self"] = circular;
  refused({ meta: circular }, /JSON/);
});
