import { setTimeout as sleep } from "node:timers/promises";
import { chimpbaseMesh, createHost, onStop, route, service } from "@chimpbase/mesh";

// A node for drain-under-load.test.ts: serves RPC and HTTP, and says at its end how many requests its handlers have begun.
let begun = 0;
const host = createHost({ name: "child", server: { port: 0 }, secrets: { values: { MESH_TOKEN: "t0ken" } }, logger: { level: "silent" } });
host.register(
  chimpbaseMesh({ services: [service({ name: "work", version: 1, actions: { do: async () => { await sleep(15); return process.pid; } } })], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0" }),
  route("work", async (request) => {
    if (new URL(request.url).pathname !== "/work") return null;
    begun++;
    await sleep(15);
    return new Response("done");
  }),
  onStop(() => void process.stdout.write(`${JSON.stringify({ begun })}\n`)),
);
await host.start({ signals: true });
process.stdout.write(`${JSON.stringify({ url: host.url, nodeId: host.nodeId })}\n`);
