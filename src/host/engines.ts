import { PlaceholderCache } from "../storage/placeholders.js";
import { openPostgres } from "../storage/postgres.js";
import { migrate } from "../storage/migrations.js";
import { startEmbedded } from "../storage/embedded.js";
import { PostgresListenEventBus } from "../runtime/bus.js";
import { createOutbox } from "../runtime/outbox.js";
import { createScheduler } from "../runtime/scheduler.js";
import { createWorkerEngine } from "../runtime/worker.js";
import { openSecrets } from "../runtime/secrets.js";
import { HostActions } from "./actions.js";
import { HostDispatcher } from "./dispatcher.js";
import type { Storage } from "../contract/storage.js";
import type { RunningOutbox } from "../runtime/outbox.js";
import type { Scheduler } from "../runtime/scheduler.js";
import type { Secrets } from "../runtime/secrets.js";
import type { WorkerEngine } from "../runtime/worker.js";
import type { ResolvedDatabase, ResolvedHostOptions } from "./options.js";
import type { Arrangement } from "./plugins.js";
import type { Teardown } from "./teardown.js";

export interface EngineOptions {
  readonly options: ResolvedHostOptions;
  readonly arrangement: Arrangement;
  readonly nodeId: string;
  /** Gets the end of everything that is opened. */
  readonly teardown: Teardown;
  /** Throws where the start has been given up. */
  readonly checkpoint: () => void;
}

/** What turns registrations into something that runs. Made and connected, but nothing is taken in yet. */
export interface Engines {
  readonly secrets: Secrets;
  readonly storage: Storage;
  readonly outbox: RunningOutbox;
  readonly bus: PostgresListenEventBus;
  readonly actions: HostActions;
  readonly dispatcher: HostDispatcher;
  readonly worker: WorkerEngine;
  readonly scheduler: Scheduler;
}

export async function openEngines(given: EngineOptions): Promise<Engines> {
  const { options, arrangement, nodeId, teardown, checkpoint } = given;
  const { log } = options;
  const secrets = openSecrets(options.secrets);
  const storage = await openStorage(given);
  checkpoint();
  await migrate(storage);
  checkpoint();

  const onJobs = (lanes: readonly string[]): void => worker.wake(lanes);
  const onDelayed = (lane: string, delayMs: number): void => worker.expect(lane, delayMs);
  const outbox = createOutbox({ storage, nodeId, log, onJobs, onDelayed });
  teardown.pushPart("the outbox", () => outbox.close());
  const bus = new PostgresListenEventBus({ storage, nodeId, log, onJobs: (lanes) => worker.hear(lanes), onDelayed });
  teardown.pushPart("the event bus", () => bus.stop());

  const actions = new HostActions(arrangement.of("action"), nodeId);
  const placeholders = new PlaceholderCache();
  const dispatcher: HostDispatcher = new HostDispatcher(
    {
      storage,
      outbox,
      log,
      secret: (name) => secrets.get(name),
      rewrite: (sql) => placeholders.rewrite(sql),
      callAction: (name, args, scope) => actions.call(dispatcher, name, args, scope),
    },
    arrangement.of("context-extension"),
  );

  const onReleased = (lanes: readonly string[]): void => outbox.announce(lanes);
  const worker: WorkerEngine = createWorkerEngine({ storage, dispatcher, nodeId, log, defaults: options.worker, onReleased, live: () => bus.live });
  teardown.pushPart("the worker", () => worker.stop());
  const scheduler = createScheduler({ storage, worker, nodeId, log });
  teardown.pushPart("the scheduler", () => scheduler.stop());
  for (const registration of arrangement.of("cron")) scheduler.add(registration);
  return { secrets, storage, outbox, bus, actions, dispatcher, worker, scheduler };
}

async function openStorage({ options, teardown, checkpoint }: EngineOptions): Promise<Storage> {
  const { database, name, log } = options;
  const urls = await databaseUrls(database, teardown, log);
  checkpoint();
  const storage = await openPostgres({ ...urls, poolSize: database.poolSize, schema: database.schema, applicationName: name, log });
  // Cutting the connections takes a moment of its own.
  teardown.pushPart("the database pool", (limitMs) => storage.close(limitMs / 2));
  return storage;
}

async function databaseUrls(database: ResolvedDatabase, teardown: Teardown, log: ResolvedHostOptions["log"]): Promise<{ url: string; listenUrl?: string }> {
  if (database.embedded === null) return { url: database.url, ...(database.listenUrl === null ? {} : { listenUrl: database.listenUrl }) };
  const embedded = await startEmbedded(database.embedded, log);
  teardown.push("the embedded Postgres", () => embedded.stop());
  return { url: embedded.url };
}
