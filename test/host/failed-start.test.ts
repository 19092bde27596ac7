import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import pg from "pg";
import { chimpbaseMesh, cron, onStart, service, subscription, worker, type HostOptions, type Registration } from "@chimpbase/mesh";
import { createDatabase, createEmptyDatabase } from "../support/database.js";
import { hostOn } from "../support/host.js";

async function run(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(sql).finally(() => client.end());
}

interface Stage {
  readonly what: string;
  readonly options?: HostOptions;
  readonly registrations?: readonly Registration[];
  readonly empty?: true;
  readonly before?: string;
  readonly message: RegExp;
}

const fail = (what: string) => (): never => {
  throw new Error(`${what} failed`);
};
const everything: readonly Registration[] = [
  cron("tick", "* * * * *", () => undefined), worker("jobs", () => undefined), subscription("a.*", () => undefined),
];
const mesh = (more: Partial<Parameters<typeof chimpbaseMesh>[0]> = {}, definition: object = {}): Registration =>
  chimpbaseMesh({ services: [service({ name: "t", version: 1, actions: {}, events: { "e.balanced": { balanced: true, handler: async () => undefined } }, ...definition })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", ...more });

const stages: readonly Stage[] = [
  { what: "secrets: a directory that is none", options: { secrets: { dir: join(tmpdir(), "no-such-directory") } }, message: /secrets\.dir/ },
  { what: "migrations: a table that is in the way", empty: true, before: "CREATE VIEW _chimpbase_mesh_nodes AS SELECT 1 AS one", message: /_chimpbase_mesh_nodes|view/ },
  { what: "the scheduler: a schedule that is none", registrations: [cron("odd", "every now and then", () => undefined)], message: /odd/ },
  { what: "the bus: a LISTEN connection that is refused", options: { database: { listenUrl: "postgres://u:p@127.0.0.1:1/x" } }, message: /./ },
  { what: "a plugin in ready", registrations: [{ kind: "lifecycle", name: "p", ready: fail("ready") }], message: /ready failed/ },
  { what: "the mesh: a secret that is missing", registrations: [mesh({ meshToken: "NO_SUCH_SECRET" })], message: /NO_SUCH_SECRET/ },
  { what: "a service in started", registrations: [mesh({}, { started: fail("started") })], message: /started failed/ },
  { what: "the HTTP server: an address of nobody", options: { server: { port: 0, host: "192.0.2.1" } }, message: /server\.host/ },
  { what: "a plugin in listening", registrations: [mesh(), { kind: "lifecycle", name: "p", listening: fail("listening") }], message: /listening failed/ },
  { what: "the handlers: an option of a worker", registrations: [mesh(), worker("odd", () => undefined, { concurrency: 0 })], message: /concurrency/ },
  { what: "a start hook", registrations: [mesh(), onStart(fail("hook"))], message: /hook failed/ },
];

for (const { what, options = {}, registrations = [], empty, before, message } of stages) {
  test(`a start that fails at ${what} leaves no timer, socket, connection or row`, async () => {
    const database = await (empty === true ? createEmptyDatabase() : createDatabase());
    if (before !== undefined) await run(database.url, before);
    const resources = process.getActiveResourcesInfo().sort();
    const listeners = process.eventNames().map((name) => [name, process.listenerCount(name)]);
    const { host } = hostOn(database.url, { secrets: { values: { MESH_TOKEN: "t" } }, ...options });
    host.register(...everything, ...registrations);
    await assert.rejects(host.start({ signals: true }), message);
    assert.equal(host.url, null);
    assert.deepEqual(process.getActiveResourcesInfo().sort(), resources);
    assert.deepEqual(process.eventNames().map((name) => [name, process.listenerCount(name)]), listeners);
    if (before === undefined) await run(database.url, "DO $$ BEGIN ASSERT (SELECT count(*) FROM _chimpbase_mesh_nodes) = 0, 'a row is left'; EXCEPTION WHEN undefined_table THEN NULL; END $$");
    await host.stop();
    await database.drop();
  });
}
