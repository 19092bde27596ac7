import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { MeshError } from "@chimpbase/mesh";
import type { ListenerHandlers, Storage } from "#mesh/contract/storage.js";
import { PostgresListener } from "#mesh/storage/listener.js";
import { openPostgres, type PostgresOptions } from "#mesh/storage/postgres.js";
import { createEmptyDatabase, withAdmin, type TestDatabase } from "../support/database.js";
import { memoryLog, silentLog } from "../support/log.js";
import { relayTo } from "../support/network.js";
import { until } from "../support/wait.js";

let database: TestDatabase;
before(async () => void (database = await createEmptyDatabase()));
after(() => database.drop());

async function open(t: TestContext, options: Partial<PostgresOptions> = {}): Promise<Storage> {
  const storage = await openPostgres({ url: database.url, log: silentLog, ...options });
  t.after(() => storage.close());
  return storage;
}

interface Ear extends ListenerHandlers {
  readonly heard: string[];
  connected: number;
  disconnected: number;
}

function ear(): Ear {
  const self: Ear = {
    heard: [],
    connected: 0,
    disconnected: 0,
    onNotify: (channel, payload) => void self.heard.push(`${channel} ${payload}`),
    onConnected: () => void self.connected++,
    onDisconnected: () => void self.disconnected++,
  };
  return self;
}

const notify = (storage: Storage, channel: string, payload: string): Promise<unknown> =>
  storage.query("SELECT pg_notify($1, $2)", [channel, payload]);

/** Ends every LISTEN connection of the test database. */
const killListeners = (): Promise<number> =>
  withAdmin(async (admin) => {
    const { rows } = await admin.query(
      "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE '%-listen'",
      [new URL(database.url).pathname.slice(1)],
    );
    return rows.length;
  });

test("hears its channels in order, and no others", async (t) => {
  const storage = await open(t);
  const [one, two] = [storage.channel("one"), storage.channel("Two")];
  const listening = ear();
  const listener = await storage.listen([one, two], listening);
  assert.equal(listening.connected, 1);
  await notify(storage, storage.channel("three"), "x");
  for (let i = 0; i < 20; i++) await notify(storage, i % 2 === 0 ? one : two, String(i));
  await until(() => listening.heard.length === 20);
  assert.deepEqual(listening.heard, Array.from({ length: 20 }, (_, i) => `${i % 2 === 0 ? one : two} ${i}`));
  await listener.close();
  await notify(storage, one, "late");
  assert.equal(listening.heard.length, 20);
  assert.equal(listening.disconnected, 0);
});

test("a killed connection comes back, and says so each time", async (t) => {
  const storage = await open(t);
  const listening = ear();
  await storage.listen([storage.channel("a")], listening);
  for (let round = 1; round <= 3; round++) {
    assert.equal(await killListeners(), 1);
    await until(() => listening.connected === round + 1);
    assert.equal(listening.disconnected, round);
    await notify(storage, storage.channel("a"), String(round));
    await until(() => listening.heard.length === round);
  }
});

test("keeps trying while the server is away", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const storage = await open(t, { listenUrl: relay.url });
  const listening = ear();
  await storage.listen([storage.channel("a")], listening);
  await relay.cut();
  await until(() => listening.disconnected === 1);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(listening.connected, 1);
  await relay.open();
  await until(() => listening.connected === 2);
});

test("a LISTEN that the server has forgotten is found out and renewed", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  // What is left of LISTEN behind a pooler that shares connections.
  relay.rewrite = (sent) => Buffer.from(sent.toString("latin1").replace(/LISTEN "(forgotten)"/, "SELECT '$1'"), "latin1");
  const handlers = ear();
  const options = { url: relay.url, applicationName: "forgetful", channels: ["forgotten"], handlers, log: silentLog };
  const listener = new PostgresListener({ ...options, notify: async () => undefined, probeEveryMs: 30 });
  await listener.start();
  await until(() => handlers.disconnected === 1);
  relay.rewrite = (sent) => sent;
  await until(() => handlers.connected === handlers.disconnected + 1);
  const connected = handlers.connected;
  await new Promise((resolve) => setTimeout(resolve, 150));
  assert.equal(handlers.connected, connected);
  await listener.close();
});

test("a connection that no longer answers is replaced", { timeout: 15_000 }, async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  const handlers = ear();
  const options = { url: relay.url, applicationName: "half-open", channels: ["a"], handlers, log: silentLog };
  const listener = new PostgresListener({ ...options, notify: async () => undefined, probeEveryMs: 30 });
  await listener.start();
  relay.freeze();
  await until(() => handlers.disconnected === 1);
  relay.thaw();
  await until(() => handlers.connected === 2);
  await listener.close();
});

test("rejects if the first try fails", async (t) => {
  const relay = await relayTo(database.url);
  const storage = await open(t, { listenUrl: relay.url });
  await relay.close();
  await assert.rejects(storage.listen([storage.channel("a")], ear()), (error) => error instanceof MeshError && error.code === "DATABASE_UNAVAILABLE");
});

test("warns, naming listenUrl, where a NOTIFY does not come round", async (t) => {
  const elsewhere = await createEmptyDatabase();
  t.after(() => elsewhere.drop());
  const { log, lines } = memoryLog();
  const storage = await open(t, { listenUrl: elsewhere.url, log });
  const listening = ear();
  await storage.listen([storage.channel("a")], listening);
  const warning = await until(() => lines.find((line) => line.level === 40));
  assert.match(warning.msg, /LISTEN does not work.*database\.listenUrl/);
  await storage.close();
});

test("does not warn where LISTEN works", async (t) => {
  const { log, lines } = memoryLog();
  const storage = await open(t, { log });
  const listening = ear();
  await storage.listen([storage.channel("a")], listening);
  const echoes = async (): Promise<boolean> =>
    withAdmin(async (admin) => {
      const sql = "SELECT FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'UNLISTEN%echo%'";
      return (await admin.query(sql, [new URL(database.url).pathname.slice(1)])).rowCount === 1;
    });
  await until(echoes);
  assert.deepEqual(lines.filter((line) => line.level >= 40), []);
});

test("a handler that throws is logged and loses nothing else", async (t) => {
  const { log, lines } = memoryLog();
  const storage = await open(t, { log });
  const heard: string[] = [];
  await storage.listen([storage.channel("a")], {
    onNotify: (_channel, payload) => {
      heard.push(payload);
      throw new Error("handler");
    },
    onConnected: () => undefined,
    onDisconnected: () => undefined,
  });
  await notify(storage, storage.channel("a"), "1");
  await notify(storage, storage.channel("a"), "2");
  await until(() => heard.length === 2);
  assert.equal(lines.filter((line) => line.level === 50).length, 2);
});

test("closing ends it at any moment: connected, lost, waiting, connecting", async (t) => {
  const relay = await relayTo(database.url);
  t.after(() => relay.close());
  for (const state of ["connected", "cut", "connecting"]) {
    const storage = await openPostgres({ url: database.url, listenUrl: relay.url, log: silentLog });
    const listening = ear();
    const listener = await storage.listen([storage.channel("a")], listening);
    if (state === "cut") await relay.cut();
    if (state === "connecting") {
      relay.freeze();
      await killListeners();
      relay.thaw();
      await until(() => listening.disconnected === 1);
      relay.freeze();
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    const start = performance.now();
    await listener.close();
    assert.ok(performance.now() - start < 1_500, state);
    await storage.close();
    if (state === "cut") await relay.open();
  }
});

test("a closed storage listens no more", async () => {
  const storage = await openPostgres({ url: database.url, log: silentLog });
  const starting = storage.listen([storage.channel("a")], ear()).then(
    () => undefined,
    () => undefined,
  );
  await storage.close();
  await starting;
  await assert.rejects(storage.listen([storage.channel("a")], ear()), (error) => error instanceof MeshError && error.code === "DATABASE_UNAVAILABLE");
});
