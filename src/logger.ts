import { hostname } from "node:os";

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

/** JSON lines that pino's tools read: `{"level":30,"time":…,"pid":…,"hostname":…,"name":…,"msg":…,…}`. */
export function createLogger(options: LoggerOptions = {}): Logger {
  const threshold = LEVELS[options.level ?? "info"];
  const write = options.write ?? ((line: string) => void process.stdout.write(line));
  const base = { pid: process.pid, hostname: hostname(), ...(options.name === undefined ? {} : { name: options.name }) };
  return bind(base, threshold, write);
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

function formatLine(level: number, bindings: LogAttributes, message: string, attributes?: LogAttributes): string {
  const record = { level, time: Date.now(), ...bindings, ...attributes, msg: message };
  return stringify(record) + "\n";
}

/** A log line must never throw: what JSON cannot hold (cycles, big integers, throwing getters) is described instead. */
function stringify(record: Record<string, unknown>): string {
  try {
    return JSON.stringify(record, replacer);
  } catch {
    const safe = Object.entries(record).map(([key, value]) => [key, isPlain(value) ? value : describeOpaque(value)]);
    return JSON.stringify(Object.fromEntries(safe));
  }
}

function replacer(_key: string, value: unknown): unknown {
  if (value instanceof Error) return serializeError(value);
  if (typeof value === "bigint") return value.toString();
  return value;
}

function isPlain(value: unknown): boolean {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}

function describeOpaque(value: unknown): string {
  return value instanceof Error ? `${value.name}: ${value.message}` : `[unserializable ${typeof value}]`;
}

function serializeError(error: Error): Record<string, unknown> {
  const { code, cause } = error as Error & { code?: unknown };
  return {
    type: error.name,
    message: error.message,
    stack: error.stack,
    ...(code === undefined ? {} : { code }),
    ...(cause === undefined ? {} : { cause }),
  };
}
