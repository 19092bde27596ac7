import { createLogger, type Logger } from "#mesh/logger.js";

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [attribute: string]: unknown;
}

/** A logger that keeps its lines, from `debug` on. */
export function memoryLog(): { readonly log: Logger; readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line) as LogLine);
  return { log: createLogger({ level: "debug", write }), lines };
}

export const silentLog: Logger = createLogger({ level: "silent" });
