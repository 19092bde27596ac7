import { hostname } from "node:os";
import { MeshConfigurationError } from "./errors.js";

export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";
export type LogAttributes = Readonly<Record<string, unknown>>;

/** Structured log with pino-compatible levels and lines. */
export interface Logger {
  debug(message: string, attributes?: LogAttributes): void;
  info(message: string, attributes?: LogAttributes): void;
  warn(message: string, attributes?: LogAttributes): void;
  error(message: string, attributes?: LogAttributes): void;
  /** A logger that adds `bindings` to each of its lines. */
  child(bindings: LogAttributes): Logger;
}

export interface LoggerOptions {
  readonly name?: string;
  /** Lowest level written. Default `"info"`. */
  readonly level?: LogLevel;
  /** Receives one JSON line, newline included. Default: standard output. */
  readonly write?: (line: string) => void;
}

const LEVELS: Readonly<Record<LogLevel, number>> = { debug: 20, info: 30, warn: 40, error: 50, silent: 100 };

/**
 * JSON lines that pino's tools read: `{"level":30,"time":…,"pid":…,"hostname":…,"name":…,"msg":…,…}`.
 * Throws `MeshConfigurationError` for an unknown level.
 */
export function createLogger(options: LoggerOptions = {}): Logger {
  const level = options.level ?? "info";
  if (!Object.hasOwn(LEVELS, level)) {
    throw new MeshConfigurationError(`option "logger.level" must be one of ${Object.keys(LEVELS).join(", ")}; got ${JSON.stringify(level)}`);
  }
  const write = options.write ?? ((line: string) => void process.stdout.write(line));
  const base = { pid: process.pid, hostname: hostname(), ...(options.name === undefined ? {} : { name: options.name }) };
  return bind(base, LEVELS[level], write);
}

function bind(bindings: LogAttributes, threshold: number, write: (line: string) => void): Logger {
  const at = (level: number) => (message: string, attributes?: LogAttributes) => {
    if (level >= threshold) write(formatLine(level, bindings, message, attributes));
  };
  return {
    debug: at(LEVELS.debug),
    info: at(LEVELS.info),
    warn: at(LEVELS.warn),
    error: at(LEVELS.error),
    child: (more) => bind({ ...bindings, ...more }, threshold, write),
  };
}

/** A log line must never throw: what JSON cannot hold (cycles, throwing getters) is described instead. */
function formatLine(level: number, bindings: LogAttributes, message: string, attributes?: LogAttributes): string {
  const time = Date.now();
  try {
    return JSON.stringify(Object.assign({ level, time }, bindings, attributes, { level, time, msg: message }), replacer) + "\n";
  } catch {
    const safe = { ...describeAll(bindings), ...describeAll(attributes ?? {}) };
    return JSON.stringify(Object.assign({ level, time }, safe, { level, time, msg: String(message) })) + "\n";
  }
}

function replacer(_key: string, value: unknown): unknown {
  if (value instanceof Error) return serializeError(value);
  if (typeof value === "bigint") return value.toString();
  return value;
}

function describeAll(attributes: LogAttributes): Record<string, unknown> {
  return Object.fromEntries(Object.keys(attributes).map((key) => [key, describeValue(attributes, key)]));
}

function describeValue(attributes: LogAttributes, key: string): unknown {
  try {
    const value = attributes[key];
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    return isPlain(value) ? value : `[unserializable ${typeof value}]`;
  } catch {
    return "[unreadable]";
  }
}

function isPlain(value: unknown): boolean {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}

function serializeError(error: Error): Record<string, unknown> {
  const { code, cause, errors } = error as Error & { code?: unknown; errors?: unknown };
  return {
    type: error.name,
    message: error.message,
    stack: error.stack,
    ...(code === undefined ? {} : { code }),
    ...(cause === undefined ? {} : { cause }),
    ...(Array.isArray(errors) ? { errors } : {}),
  };
}
