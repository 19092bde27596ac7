import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { resolveHostOptions } from "#mesh/host/options.js";
import { resolveMeshOptions } from "#mesh/mesh/options.js";
import { DEFAULTS as client } from "#mesh/mesh/rpc-client.js";
import { LONGEST_WAIT as longestWaitToSend } from "#mesh/mesh/peer-overload.js";
import { LONGEST_EXPECTED_WAIT, LONGEST_WAIT as longestWaitForTurn } from "#mesh/mesh/rpc-desk.js";
import { DEFAULTS as rpcServer } from "#mesh/mesh/rpc-server.js";
import { LEAST } from "#mesh/mesh/send-queue.js";
import { MOST_CALLERS } from "#mesh/mesh/replay-guard.js";
import { MOST_COUNTS } from "#mesh/mesh/rpc-signer.js";
import { LIMITED_TO, MANY_LATE } from "#mesh/mesh/call-limits.js";
import { MOST_UNREAD_BYTES as unreadAnswers } from "#mesh/mesh/wire-callee.js";
import { MOST_UNREAD_BYTES as unreadRequests, PROBE_MS, SILENCE_MS } from "#mesh/mesh/wire-caller.js";
import { LONGEST_ON_WIRE } from "#mesh/mesh/wire-frames.js";
import { MAX_CALL_DEPTH } from "#mesh/pipeline/call-depth.js";
import { LINGER_MS, MOST_AT_ONCE } from "#mesh/pipeline/linger-limit.js";
import { MOST_HEADERS } from "#mesh/runtime/http-limits.js";
import { AHEAD_MS, MAX_AHEAD, MAX_AHEAD_BYTES } from "#mesh/runtime/lane.js";
import { HANDSHAKE_LIMIT_MS } from "#mesh/runtime/node-server.js";
import { MAX_BYTES as outboxBytes, MAX_MESSAGES } from "#mesh/runtime/outbox.js";
import { MAX_BYTES as payloadBytes } from "#mesh/runtime/outgoing.js";
import { MAX_BYTES as subscriptionBytes, MAX_WAITING } from "#mesh/runtime/subscription.js";
import { MAX_INPUT_DEPTH } from "#mesh/service/input-depth.js";
import { MAX_WAITERS } from "#mesh/storage/pool.js";

const ROOT = resolve(import.meta.dirname, "../../..");

interface Row {
  readonly what: string;
  readonly bound: string;
  readonly setBy: string;
  readonly tests: readonly string[];
}

const rows = (await readFile(join(ROOT, "docs/reference/limits.md"), "utf8")).split("\n").filter((line) => /\.test\.ts` \|$/.test(line)).map(readRow);

function readRow(line: string): Row {
  const [, what, bound, setBy, , tests] = line.split("|").map((cell) => cell.trim());
  return { what: what!.replace(/\[(.+?)\]\(.+?\)/g, "$1"), bound: bound!, setBy: setBy!, tests: Array.from(tests!.matchAll(/`([^`]+)`/g), ([, name]) => name!) };
}

const UNITS: Readonly<Record<string, number>> = { KiB: 1024, MiB: 1024 ** 2, ms: 1, s: 1000 };

/** The figures of a bound, in bytes, in ms, or without a unit. */
function figuresOf({ bound }: Row): number[] {
  return Array.from(bound.matchAll(/half|(\d+(?:\.\d+)?)(?: (KiB|MiB|ms|s)\b)?/g), ([, number, unit = ""]) => (number === undefined ? 0.5 : Number(number) * (UNITS[unit] ?? 1)));
}

test("every limit in the reference names a test that is there", () => {
  assert.ok(rows.length > 20, "the search finds limits");
  for (const { what, tests } of rows) {
    const folder = dirname(tests[0]!);
    for (const name of tests) assert.ok(existsSync(join(ROOT, name.includes("/") ? name : join(folder, name))), `${name}, of: ${what}`);
  }
});

const { server, worker, database } = resolveHostOptions({ database: "postgres://localhost/x" });
const mesh = resolveMeshOptions({ services: [class {}], meshToken: "MESH_TOKEN" });

/** By what the page says they are set by. */
const DEFAULTS: Readonly<Record<string, number>> = {
  "mesh option `maxInFlight`": mesh.maxInFlight,
  "mesh option `maxBodyBytes`": mesh.maxBodyBytes,
  "`defaultTimeoutMs`, `timeoutMs`": mesh.defaultTimeoutMs,
  "`worker.concurrency`, `concurrency`": worker.concurrency,
  "`worker.maxAttempts`, `maxAttempts`": worker.maxAttempts,
  "`database.poolSize`": database.poolSize,
  "`server.maxConnections`": server!.maxConnections,
  "`server.maxBodyBytes`": server!.maxBodyBytes,
  "`server.maxHeaderBytes`, constant": server!.maxHeaderBytes,
  "`server.headersTimeoutMs`": server!.headersTimeoutMs,
  "`server.requestTimeoutMs`": server!.requestTimeoutMs,
};

for (const [setBy, value] of Object.entries(DEFAULTS)) {
  test(`the bound set by ${setBy} is the default of the code`, () => {
    const row = rows.find((each) => each.setBy === setBy);
    assert.ok(row, "the page has it");
    assert.equal(figuresOf(row)[0], value);
  });
}

/** By what the page says that they bound, each with all figures of the bound. */
const CONSTANTS: Readonly<Record<string, readonly number[]>> = {
  "connections to one peer, for calls by POST": [client.connections],
  "calls to one peer, under way and waiting": [client.maxPending],
  "body of a request on a wire": [LONGEST_ON_WIRE],
  "requests on a wire that the callee has not read": [unreadRequests],
  "answers on a wire that the caller has not read": [unreadAnswers],
  "time for a sign of life on a wire, after a timeout in silence": [PROBE_MS, SILENCE_MS],
  "expected wait for a connection to a peer": [longestWaitToSend],
  "wait of a request for its turn on the node that runs it": [longestWaitForTurn, LONGEST_EXPECTED_WAIT],
  "calls of an action under way on a wire to a peer that hardly answers them in time": [LIMITED_TO, LEAST, client.maxPending, MANY_LATE],
  "time for a request body, or a line on a wire, to arrive": [rpcServer.bodyTimeoutMs],
  "result": [rpcServer.maxResultBytes],
  "depth of a chain of calls": [MAX_CALL_DEPTH],
  "nesting of input": [MAX_INPUT_DEPTH],
  "emits and enqueues that wait for their commit": [MAX_MESSAGES, outboxBytes],
  "payload of an event or job": [payloadBytes],
  "broadcasts that wait for one subscription": [MAX_WAITING, subscriptionBytes],
  "jobs claimed ahead, for each queue or group": [AHEAD_MS, MAX_AHEAD, MAX_AHEAD_BYTES],
  "statements and transactions that wait for a connection": [MAX_WAITERS],
  "head of an HTTP request": [server!.maxHeaderBytes, MOST_HEADERS],
  "refused clients that are still sending and may read their answer": [MOST_AT_ONCE, MOST_AT_ONCE, LINGER_MS],
  "time for a TLS handshake": [HANDSHAKE_LIMIT_MS],
  "callers whose signed requests are remembered": [MOST_CALLERS],
  "peers for which the count of signed requests is kept": [MOST_COUNTS],
};

for (const [what, figures] of Object.entries(CONSTANTS)) {
  test(`the bound of ${what} is the constant of the code`, () => {
    const row = rows.find((each) => each.what === what);
    assert.ok(row, "the page has it");
    assert.deepEqual(figuresOf(row), figures);
  });
}

test("every bound is compared with the code", () => {
  const isCompared = ({ what, setBy }: Row): boolean => (!setBy.includes("`") || setBy in DEFAULTS) && (!setBy.includes("constant") || what in CONSTANTS);
  assert.deepEqual(rows.filter((row) => !isCompared(row)), []);
  assert.deepEqual(rows.filter(({ setBy }) => !/`|constant/.test(setBy)), [], "each says what sets it");
});

test("a node refuses calls before its connections run out", () => {
  assert.ok(mesh.maxInFlight * 2 <= server!.maxConnections);
});
