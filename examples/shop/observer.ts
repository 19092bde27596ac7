import { chimpbaseMesh, createHost, onStart, service, type Host, type Peer } from "@chimpbase/mesh";

export interface NodeCounts {
  readonly role: string;
  readonly nodeId: string;
  readonly place: number;
  readonly charge: number;
  readonly writeInvoice: number;
  readonly heard: number;
}

export interface Books {
  readonly orders: number;
  readonly invoices: number;
  readonly invoicedOrders: number;
}

/** A node that offers nothing and watches the others through the mesh, as any tool could. */
export class Observer {
  readonly #host: Host;
  readBooks!: () => Promise<Books>;

  constructor(databaseUrl: string) {
    this.#host = createHost({ name: "observer", database: databaseUrl, server: { port: 0 }, logger: { level: "error" } });
    this.#host.register(
      chimpbaseMesh({ services: [service({ name: "observer" })], meshToken: "MESH_TOKEN", meta: { role: "observer" } }),
      onStart((ctx) => {
        this.readBooks = async () => {
          const [books] = await ctx.db.query<Books>(`
            SELECT (SELECT count(*)::int FROM shop_orders) AS orders,
                   (SELECT count(*)::int FROM shop_invoices) AS invoices,
                   (SELECT count(DISTINCT order_id)::int FROM shop_invoices) AS "invoicedOrders"`);
          return books!;
        };
      }),
    );
  }

  async start(): Promise<void> {
    await this.#host.start();
  }

  async stop(): Promise<void> {
    await this.#host.stop();
  }

  peers(): readonly Peer[] {
    return this.#host.mesh.peers();
  }

  async waitFor(...services: string[]): Promise<void> {
    await this.#host.mesh.waitFor(services);
  }

  /** What one node has done so far, asked of that node. */
  async countsOf(node: { role: string; nodeId: string }): Promise<NodeCounts> {
    const zero = { place: 0, charge: 0, writeInvoice: 0, heard: 0 };
    const own = node.role === "gateway" ? {} : await this.#counts(node.role, node.nodeId);
    return { ...zero, ...own, ...(await this.#counts("news", node.nodeId)), role: node.role, nodeId: node.nodeId };
  }

  async #counts(service: string, nodeId: string): Promise<Record<string, number>> {
    return await this.#host.mesh.call(`v1.${service}.counts`, {}, { nodeId });
  }
}
