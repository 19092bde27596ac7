import { createHost, type Host, type HostOptions } from "@chimpbase/mesh";
import { createDatabase } from "./database.js";
import type { TestContext } from "node:test";

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [attribute: string]: unknown;
}

export interface TestHost {
  readonly host: Host;
  readonly databaseUrl: string;
  /** What the host has logged. */
  readonly lines: readonly LogLine[];
}

/** A host on a database of its own, with any free port; stopped, and its database dropped, when the test ends. */
export async function makeHost(t: TestContext, options: HostOptions = {}): Promise<TestHost> {
  const database = await createDatabase();
  const { host, lines } = hostOn(database.url, options);
  t.after(async () => {
    await host.stop().catch(() => undefined);
    await database.drop();
  });
  return { host, lines, databaseUrl: database.url };
}

export function hostOn(databaseUrl: string, options: HostOptions = {}): { host: Host; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line) as LogLine);
  const given = typeof options.database === "object" ? options.database : {};
  const host = createHost({
    server: { port: 0 },
    logger: { write },
    ...options,
    database: { url: databaseUrl, poolSize: 4, ...given },
  });
  return { host, lines };
}
