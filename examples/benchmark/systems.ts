import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import type { Part } from "./scenario.js";

export interface System {
  readonly name: string;
  readonly part: Part;
  /** Absolute path of a module whose exports are roles. */
  readonly file: string;
  readonly variant?: string;
  /** A query that finds the jobs which are not completed. */
  readonly uncompleted?: string;
}

/** From `.build/examples/benchmark`, where this file runs. */
const SOURCES = new URL("../../../examples/benchmark/", import.meta.url);
export const sourcePath = (path: string): string => fileURLToPath(new URL(path, SOURCES));
const builtPath = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** What is not the mesh itself, in one of its variants. */
export const isForeign = ({ file }: System): boolean => file.startsWith(sourcePath("peers/"));

export const mesh: System = { name: "mesh", part: "ours", file: builtPath("programs/mesh.js"), uncompleted: "SELECT FROM _chimpbase_mesh_jobs" };
export const meshPlainEmit: System = { ...mesh, name: "mesh, emit for groups too", part: "shown", variant: "plain" };
export const meshCluster: System = { name: "mesh", part: "ours", file: builtPath("programs/cluster.js") };
export const bareNode: System = { name: "bare Node", part: "shown", file: builtPath("programs/bare.js") };
export const graphileWorker: System = { ...peer("graphile-worker", "graphile-worker.mjs"), uncompleted: "SELECT FROM graphile_worker.jobs" };
export const pgBoss: System = { ...peer("pg-boss", "pg-boss.mjs", "100"), uncompleted: "SELECT FROM pgboss.job WHERE state < 'completed'" };
export const nestTcp = peer("NestJS TCP", "nestjs.mjs");
export const moleculer = peer("Moleculer", "moleculer.mjs", "0");
export const moleculerTcp = peer("Moleculer TCP", "moleculer.mjs", "tcp");
/** The mesh gives every call a time limit; this is what one costs there. */
export const moleculerWithLimit: System = { ...moleculer, name: "Moleculer, limit of 5 s", variant: "5000", part: "shown" };
export const moleculerTcpWithLimit: System = { ...moleculerTcp, name: "Moleculer TCP, limit of 5 s", variant: "tcp:5000", part: "shown" };
export const httpFloor: System = { ...peer("node:http, undici", "http.mjs"), part: "shown" };
export const functionFloor: System = { ...bareNode, name: "plain async function" };
export const sqlFloor: System = { ...peer("raw SQL, 500 a batch", "postgres.mjs"), part: "shown", uncompleted: "SELECT FROM raw_jobs" };
export const transactionFloor: System = { ...sqlFloor, name: "raw SQL, one round trip a job" };
export const lineFloor: System = { ...peer("JSON lines on a socket", "lines.mjs"), part: "shown" };
export const notifyFloor: System = { ...peer("pg_notify, 50 packed", "postgres.mjs"), part: "shown" };

function peer(name: string, file: string, variant?: string): System {
  return { name, part: "peer", file: sourcePath(`peers/${file}`), ...(variant === undefined ? {} : { variant }) };
}

const BROKERS = [
  { name: "NATS", url: "nats://127.0.0.1:4222", port: 4222 },
  { name: "Redis", url: "redis://127.0.0.1:6379", port: 6379 },
] as const;

/** Moleculer over those brokers that answer on this machine. */
export async function moleculerOverBrokers(part: Part): Promise<System[]> {
  const found = await answeringBrokers();
  return found.map(({ name, url }) => ({ ...peer(`Moleculer ${name}`, "moleculer.mjs", url), part }));
}

export async function moleculerChannels(part: Part): Promise<System[]> {
  const found = await answeringBrokers();
  return found.map(({ name, url }) => ({ ...peer(`Moleculer Channels, ${name}`, "moleculer-channels.mjs", url), part }));
}

async function answeringBrokers(): Promise<readonly (typeof BROKERS)[number][]> {
  const answers = await Promise.all(BROKERS.map(({ port }) => accepts(port)));
  return BROKERS.filter((_, index) => answers[index]);
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", timeout: 500 });
    const end = (answer: boolean) => (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", end(true)).once("error", end(false)).once("timeout", end(false));
  });
}
