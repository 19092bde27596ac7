import { MeshError, route, type Registration } from "@chimpbase/mesh";
import { OrdersService, type PlaceOrder } from "./orders.js";

/** HTTP for the outside world: `POST /orders`, `GET /nodes`. */
export const gatewayRoutes: readonly Registration[] = [
  route("orders", async (request, env) => {
    if (request.method !== "POST" || new URL(request.url).pathname !== "/orders") return null;
    // Whatever the client sent: the node that runs the action validates it.
    const order: unknown = await request.json().catch(() => null);
    try {
      const placed = await env.mesh.service(OrdersService).place(order as PlaceOrder, { retry: { attempts: 3, delayMs: 50 }, strategy: "round-robin" });
      return Response.json(placed, { status: 201 });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return Response.json({ error: error.message, code: error.code, details: error.data }, { status: error.status });
    }
  }),

  route("nodes", async (request, env) => {
    if (new URL(request.url).pathname !== "/nodes") return null;
    const peers = env.mesh.peers().map(({ nodeId, advertisedUrl, metadata, services }) => ({
      nodeId,
      url: advertisedUrl,
      role: metadata["role"],
      services: services.map(({ name }) => name),
    }));
    return Response.json(peers);
  }),
];
