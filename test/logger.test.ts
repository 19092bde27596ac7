import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshConfigurationError, createLogger, type Logger, type LoggerOptions } from "@chimpbase/mesh";

function logTo(options: LoggerOptions = {}): { log: Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const log = createLogger({ ...options, write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) });
  return { log, lines };
}

test("a line has what pino's tools read, and the bindings of child loggers", () => {
  const { log, lines } = logTo({ name: "api" });
  log.child({ requestId: "r1" }).child({ handler: "h" }).warn("slow", { ms: 12 });
  const { level, name, requestId, handler, ms, msg, time, pid, hostname } = lines[0] ?? {};
  assert.deepEqual({ level, name, requestId, handler, ms, msg }, { level: 40, name: "api", requestId: "r1", handler: "h", ms: 12, msg: "slow" });
  assert.deepEqual([typeof time, typeof pid, typeof hostname], ["number", "number", "string"]);
});

test("levels below the threshold are not written", () => {
  const { log, lines } = logTo({ level: "warn" });
  log.debug("no");
  log.info("no");
  log.error("yes");
  assert.deepEqual(lines.map(({ msg }) => msg), ["yes"]);
});

test("attributes cannot take the place of level, time and message", () => {
  const { log, lines } = logTo();
  log.info("real", { level: 99, time: 0, msg: "forged" });
  assert.equal(lines[0]?.["level"], 30);
  assert.equal(lines[0]?.["msg"], "real");
  assert.notEqual(lines[0]?.["time"], 0);
});

test("errors are written with type, code, cause and the errors they gather", () => {
  const { log, lines } = logTo();
  const error = Object.assign(new AggregateError([new Error("one")], "many", { cause: new TypeError("root") }), { code: "E_MANY" });
  log.error("failed", { error });
  const written = lines[0]?.["error"] as Record<string, { message?: string; type?: string }> & { errors: { message: string }[] };
  assert.equal(written["code"], "E_MANY");
  assert.equal(written["cause"]?.type, "TypeError");
  assert.equal(written.errors[0]?.message, "one");
});

test("what JSON cannot hold never throws", () => {
  const { log, lines } = logTo();
  const circular: Record<string, unknown> = { kept: 1 };
  circular["self"] = circular;
  const loop = new Error("loop");
  loop.cause = loop;
  log.info("circular", { circular, plain: "stays" });
  log.info("big", { big: 10n });
  log.info("cause", { loop });
  log.info("throwing", { get bad() { throw new Error("no"); }, plain: "stays" });
  assert.equal(lines[0]?.["plain"], "stays");
  assert.equal(lines[1]?.["big"], "10");
  assert.match(String(lines[2]?.["loop"]), /loop/);
  assert.equal(lines[3]?.["bad"], "[unreadable]");
  assert.equal(lines[3]?.["plain"], "stays");
});

test("an unknown level is refused", () => {
  assert.throws(() => createLogger({ level: "verbose" as never }), MeshConfigurationError);
});
