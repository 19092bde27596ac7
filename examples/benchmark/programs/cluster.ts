import { chimpbaseMesh, createHost, type Host } from "@chimpbase/mesh";
import type { Running, Setup } from "../roles.js";
import { AdderService, NewsService, WorkService } from "./services.js";

/** Many nodes in one process, each a host of its own with three connections at most: `poolSize` 1, the reserved one, and the one that listens. */
export async function cluster(setup: Setup): Promise<Running> {
  process.env["HOSTNAME"] = "127.0.0.1";
  const hosts: Host[] = [];
  const start = async (): Promise<Host> => {
    const host = createHost({
      name: "bench-cluster",
      database: { url: setup.databaseUrl, poolSize: 1 },
      server: { port: 0 },
      secrets: { values: { MESH_TOKEN: setup.token } },
      logger: { level: "error", write: (line) => void process.stderr.write(line) },
    });
    const services = [AdderService, new WorkService(() => undefined), new NewsService(() => undefined)];
    host.register(chimpbaseMesh({ services, meshToken: "MESH_TOKEN" }));
    await host.start();
    return host;
  };
  return {
    special: {
      async join({ count }) {
        for (let i = 0; i < count!; i++) hosts.push(await start());
      },
      /** The fewest peers that a node of this process sees. */
      peers: async () => Math.min(...hosts.map((host) => host.mesh.peers().length)),
      async roll() {
        for (const [index, host] of hosts.entries()) {
          await host.stop();
          hosts[index] = await start();
        }
      },
    },
    stop: () => Promise.all(hosts.map((host) => host.stop())),
  };
}
