import { setTimeout as sleep } from "node:timers/promises";
import { chimpbaseMesh, createHost, service } from "@chimpbase/mesh";
import type { Context, MeshOptions } from "@chimpbase/mesh";
import { serveCommands } from "./process.js";
import type { NodeConfig, NodeCommands } from "./protocol.js";

/** One node of a test cluster: a process that does what its parent says over IPC. */
const config = JSON.parse(process.env["NODE_CONFIG"]!) as NodeConfig;
const received: string[] = [];

const probe = service({
  name: "probe",
  version: 1,
  actions: {
    whoami: async (ctx: Context) => ctx.mesh.nodeId(),
    sleep: async (ctx: Context, args: { ms: number }) => {
      received.push("sleeping");
      await sleep(args.ms, undefined, { signal: ctx.signal });
      return ctx.mesh.nodeId();
    },
  },
  events: {
    "news": async (_ctx: Context, payload: string) => void received.push(`news ${payload}`),
    "order.paid": { balanced: true, handler: async (_ctx: Context, payload: string) => void received.push(`paid ${payload}`) },
  },
});

const reports = service({ name: "reports", version: 1, actions: { build: async (ctx: Context) => ctx.mesh.nodeId() } });

const host = createHost({
  name: config.name,
  database: config.database,
  server: { port: 0, host: "127.0.0.1" },
  secrets: { values: { MESH_TOKEN: "cluster" } },
  logger: { level: config.logLevel ?? "silent", write: (line) => void process.stderr.write(line) },
});
host.register(chimpbaseMesh({
  services: [probe], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", ...config.mesh as Partial<MeshOptions>,
}));

serveCommands<NodeCommands>({
  start: async () => {
    await host.start();
    return { nodeId: host.nodeId, url: host.url! };
  },
  stop: () => host.stop(),
  call: (name, args, options) => host.mesh.call(name, args, options),
  emit: (event, payload, options) => host.mesh.emit(event, payload, options),
  peers: async () => host.mesh.peers(),
  waitFor: (names, options) => host.mesh.waitFor(names, options),
  addReports: () => host.mesh.register(reports),
  removeReports: () => host.mesh.unregister("v1.reports"),
  received: async () => received,
});
