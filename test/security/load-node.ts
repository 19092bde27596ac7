import { chimpbaseMesh, createHost, route, service } from "@chimpbase/mesh";
import { serveCommands } from "../cluster/process.js";
import type { LoadNodeCommands, LoadNodeConfig } from "./load-protocol.js";

/** A node that others attack: tells where it is, and what it holds. */
const { database, server } = JSON.parse(process.env["NODE_CONFIG"]!) as LoadNodeConfig;
const host = createHost({ database, server: { port: 0, ...server }, secrets: { values: { MESH_TOKEN: "t0ken" } }, logger: { level: "silent" } });
host.register(
  chimpbaseMesh({ services: [service({ name: "t", version: 1, actions: { echo: async (_ctx, args) => args } })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }),
  route("plain", (request) => (new URL(request.url).pathname === "/plain" ? new Response("plain") : null)),
);

serveCommands<LoadNodeCommands>({
  start: async () => {
    await host.start();
    return host.url!;
  },
  stop: () => host.stop(),
  held: async () => {
    global.gc!();
    const { heapUsed, external } = process.memoryUsage();
    return { rssPeak: process.resourceUsage().maxRSS * 1024, heap: heapUsed + external };
  },
});
