import { chimpbaseMesh, createHost } from "@chimpbase/mesh";
import { BillingService } from "./billing.js";
import { gatewayRoutes } from "./gateway.js";
import { NewsService } from "./news.js";
import { OrdersService } from "./orders.js";

const SERVICES = { gateway: [], orders: [OrdersService], billing: [BillingService] };

type Role = keyof typeof SERVICES;

const role = process.argv[2] as Role;
if (!(role in SERVICES)) throw new Error(`usage: node node.js ${Object.keys(SERVICES).join("|")}`);

const host = createHost({
  name: role,
  server: { port: role === "gateway" ? Number(process.env["PORT"] ?? 3000) : 0 },
  logger: { level: "warn" },
});
host.register(
  chimpbaseMesh({
    services: [...SERVICES[role], NewsService],
    meshToken: "MESH_TOKEN",
    meta: { role },
  }),
);
if (role === "gateway") host.register(...gatewayRoutes);
await host.start({ signals: true });
process.stdout.write(`${JSON.stringify({ ready: role, url: host.url, nodeId: host.nodeId })}\n`);
