import { Socket } from "node:net";
import pg from "pg";

export type Client = pg.Client;

export interface ConnectionConfig {
  readonly url: string;
  readonly applicationName: string;
}

const CONNECT_TIMEOUT_MS = 5_000;
const KEEP_ALIVE_DELAY_MS = 10_000;
const GOODBYE_MS = 1_000;

export function createClient({ url, applicationName }: ConnectionConfig, socket = new Socket()): Client {
  const client = new pg.Client({
    stream: () => socket,
    connectionString: url,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
  });
  // A client that emits `error` with nobody listening ends the process.
  client.on("error", () => undefined);
  return client;
}

/** Says goodbye to the server; cuts the socket where that takes too long. Never rejects, never hangs. */
export function endClient(client: Client): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(limit);
      resolve();
    };
    const limit = setTimeout(() => {
      client.connection.stream.destroy();
      done();
    }, GOODBYE_MS);
    client.end().then(done, done);
  });
}
