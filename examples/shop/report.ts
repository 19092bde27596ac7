import type { Peer } from "@chimpbase/mesh";
import type { Answer } from "./customers.js";
import type { Books, NodeCounts } from "./observer.js";

export interface Result {
  readonly placed: number;
  readonly failed: readonly Answer[];
  readonly books: Books;
  /** Counts of the killed node, read just before. */
  readonly before: NodeCounts;
  readonly living: readonly NodeCounts[];
}

export const say = (line: string): void => void process.stdout.write(`${line}\n`);

export function printPeers(peers: readonly Peer[]): void {
  say("\nNodes in the registry");
  for (const { metadata, nodeId, advertisedUrl, services } of peers) {
    const names = services.map(({ name, version }) => `v${version}.${name}`).join(" ");
    say(`  ${String(metadata["role"]).padEnd(8)}  ${nodeId}  ${advertisedUrl}  ${names}`);
  }
}

export function printResult({ placed, failed, books, before, living }: Result): void {
  say("\n  node      place  charge  invoice  news");
  for (const node of [...living, { ...before, role: "(killed)" }]) {
    const numbers = [node.place, node.charge, node.writeInvoice, node.heard].map((n, i) => String(n).padStart([7, 8, 9, 6][i]!));
    say(`  ${node.role.padEnd(8)}${numbers.join("")}`);
  }
  say(`
  orders placed            ${placed}
  orders in the database   ${books.orders}
  invoices written         ${books.invoices}, for ${books.invoicedOrders} different orders
  failures                 ${failed.length}`);
}

/** The promises of the mesh, on real data: nothing failed, nothing lost, nothing done twice. */
export function checkResult({ placed, failed, books, living }: Result): void {
  const problems = [
    ...failed.map(({ status, body }) => `an order was answered with ${status} ${body.code}`),
    ...(books.orders === placed ? [] : [`${placed} orders were confirmed, ${books.orders} are in the database`]),
    ...(books.invoices === placed && books.invoicedOrders === placed ? [] : [`${placed} orders have ${books.invoices} invoices`]),
    ...living.filter(({ heard }) => heard !== placed).map(({ role, heard }) => `a ${role} node heard of ${heard} orders`),
  ];
  if (problems.length > 0) throw new Error(problems.join("; "));
}
