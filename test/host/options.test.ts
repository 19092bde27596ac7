import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError, createHost } from "@chimpbase/mesh";
import { resolveHostOptions } from "#mesh/host/options.js";

const URL = "postgres://u:s3cret@db/app";

function refused(options: object, message: RegExp, environment: NodeJS.ProcessEnv = {}): void {
  assert.throws(() => resolveHostOptions(options, environment), (error) => {
    assert.ok(error instanceof MeshConfigurationError, String(error));
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /s3cret/);
    return true;
  });
}

test("every default is filled in", () => {
  const { log, ...options } = resolveHostOptions({}, { DATABASE_URL: URL });
  assert.equal(typeof log.info, "function");
  assert.deepEqual(options, {
    name: "host",
    database: { poolSize: 10, schema: "public", embedded: null, url: URL, listenUrl: null },
    server: { port: 3000, host: "127.0.0.1", maxBodyBytes: 10_485_760, maxConnections: 10_000, requestTimeoutMs: 300_000, headersTimeoutMs: 10_000, maxHeaderBytes: 16_384, keepAliveTimeoutMs: 72_000, tls: null },
    worker: { concurrency: 10, leaseMs: 30_000, maxAttempts: 5, retryDelayMs: 1_000, pollIntervalMs: 1_000 },
    secrets: { values: {} },
    drainTimeoutMs: 20_000,
  });
});

test("a database is given by URL, by options, by the environment, or embedded", () => {
  const database = (given: unknown, environment = {}): object => resolveHostOptions({ database: given } as object, environment).database;
  assert.deepEqual(database(URL), { poolSize: 10, schema: "public", embedded: null, url: URL, listenUrl: null });
  assert.deepEqual(database({ url: URL, listenUrl: URL, schema: "a", poolSize: 2 }), { poolSize: 2, schema: "a", embedded: null, url: URL, listenUrl: URL });
  assert.deepEqual(database({ schema: "b" }, { DATABASE_URL: URL }), { poolSize: 10, schema: "b", embedded: null, url: URL, listenUrl: null });
  assert.deepEqual(database({ embedded: ".data/pg" }, { DATABASE_URL: URL }), { poolSize: 10, schema: "public", embedded: ".data/pg" });
  assert.deepEqual(database(undefined, { DATABASE_URL: URL }), database(URL));
});

test("without a database, the error names the three ways to give one", () => {
  refused({}, /option "database".*DATABASE_URL.*embedded: true/);
  refused({ database: "" }, /DATABASE_URL/, { DATABASE_URL: "" });
});

test("limits of heads are refused by name where they are none", () => {
  refused({ database: URL, server: { headersTimeoutMs: 0 } }, /"server\.headersTimeoutMs".*from 100 .*got 0/);
  refused({ database: URL, server: { maxHeaderBytes: 1e9 } }, /"server\.maxHeaderBytes".*to 1048576; got 1000000000/);
});

test("unknown options are refused with the nearest known one", () => {
  refused({ drainTimeout: 1 }, /"drainTimeout".*did you mean "drainTimeoutMs"/);
  refused({ database: { url: URL, poolsize: 1 } }, /"database\.poolsize".*did you mean "poolSize"/);
  refused({ database: URL, server: { prot: 1 } }, /"server\.prot".*did you mean "port"/);
  refused({ database: URL, worker: { completelyElse: 1 } }, /"worker\.completelyElse".*known are: concurrency/);
});

test("wrong values are refused by option, value and what is expected", () => {
  refused({ database: URL, drainTimeoutMs: -1 }, /"drainTimeoutMs" must be a whole number from 0 .*got -1/);
  refused({ database: URL, server: { port: "3000" } }, /"server\.port" .*got "3000"/);
  refused({ database: URL, server: { port: 65_536 } }, /"server\.port"/);
  refused({ database: URL, worker: { concurrency: 0 } }, /"worker\.concurrency"/);
  refused({ database: URL, worker: { leaseMs: NaN } }, /"worker\.leaseMs"/);
  refused({ database: URL, name: "" }, /"name"/);
  refused({ database: URL, server: true }, /"server" must be an object; got true/);
  refused({ database: { embedded: true, url: URL } }, /exclude each other/);
  refused({ database: { embedded: 1 } }, /"database\.embedded"/);
  refused({ database: URL, logger: { level: "loud" } }, /logger\.level.*"loud"/);
  refused({ database: { url: URL, schema: "x".repeat(64) } }, /"database\.schema" must be at most 63 bytes/);
});

test("no message shows what may be a password or a secret", () => {
  refused({ database: "mysql://u:s3cret@db" }, /"database\.url" must be a URL that begins with postgres/);
  refused({ database: { url: URL, listenUrl: "s3cret" } }, /"database\.listenUrl"/);
  refused({}, /DATABASE_URL must begin with postgres/, { DATABASE_URL: "http://s3cret" });
  refused({ database: URL, secrets: { values: { TOKEN: ["s3cret"] } } }, /"secrets\.values\.TOKEN" must be a string/);
});

test("createHost takes what process.env gives", () => {
  assert.equal(createHost({ name: undefined, database: URL, server: false }).name, "host");
});
