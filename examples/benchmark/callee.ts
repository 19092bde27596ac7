import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { chimpbaseMesh, createHost } from "@chimpbase/mesh";
import { AdderService } from "./services.js";

// The node that is called, and beside it the floor: node:http and JSON with nothing around them.
const floor = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const { a, b } = JSON.parse(Buffer.concat(chunks).toString()) as { a: number; b: number };
    response.setHeader("content-type", "application/json").end(JSON.stringify({ sum: a + b }));
  });
});
await new Promise<void>((resolve) => floor.listen(0, "127.0.0.1", resolve));

const host = createHost({ name: "callee", server: { port: 0 }, logger: { level: "error" } });
host.register(chimpbaseMesh({ services: [AdderService], meshToken: "MESH_TOKEN" }));
await host.start({ signals: true });
process.once("SIGTERM", () => floor.close());
process.stdout.write(`${JSON.stringify({ floor: `http://127.0.0.1:${(floor.address() as AddressInfo).port}` })}\n`);
