import { chimpbaseMesh, createHost } from "@chimpbase/mesh";
import type { Host, HostOptions, MeshOptions, Plugin, ServiceSource } from "@chimpbase/mesh";
import pg from "pg";
import type { StandardSchemaV1 } from "#mesh/contract/standard-schema.js";
import { createDatabase } from "../support/database.js";
import type { TestDatabase } from "../support/database.js";

/** Hosts of one mesh, in this process, on a database of their own. */
export class MeshFixture implements AsyncDisposable {
  readonly logs: string[] = [];
  readonly #database: TestDatabase;
  readonly #hosts: Host[] = [];

  private constructor(database: TestDatabase) {
    this.#database = database;
  }

  static async open(): Promise<MeshFixture> {
    return new MeshFixture(await createDatabase());
  }

  get url(): string {
    return this.#database.url;
  }

  /** Not started yet. */
  host(services: readonly ServiceSource[], mesh: Partial<MeshOptions> = {}, options: Partial<HostOptions> = {}): Host {
    return this.bare(chimpbaseMesh({ services, meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", ...mesh }), options);
  }

  /** A host with just this plugin. */
  bare(plugin: Plugin, options: Partial<HostOptions> = {}): Host {
    const host = createHost({
      name: `host-${this.#hosts.length + 1}`,
      database: this.#database.url,
      server: { port: 0, host: "127.0.0.1" },
      secrets: { values: { MESH_TOKEN: "t0ken" } },
      logger: { level: "info", write: (line) => void this.logs.push(line) },
      ...options,
    });
    this.#hosts.push(host);
    return host.register(plugin);
  }

  async started(services: readonly ServiceSource[], mesh: Partial<MeshOptions> = {}, options: Partial<HostOptions> = {}): Promise<Host> {
    const host = this.host(services, mesh, options);
    await host.start();
    return host;
  }

  async query<T extends pg.QueryResultRow>(sql: string, params: readonly unknown[] = []): Promise<T[]> {
    const client = new pg.Client({ connectionString: this.#database.url });
    await client.connect();
    try {
      return (await client.query<T>(sql, [...params])).rows;
    } finally {
      await client.end();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#hosts.map((host) => host.stop()));
    await this.#database.drop();
  }
}

/** A Standard Schema of one function. */
export function schema(validate: (value: unknown) => unknown): StandardSchemaV1 {
  return { "~standard": { version: 1, vendor: "test", validate: async (value: unknown) => ({ value: await validate(value) }) } };
}
