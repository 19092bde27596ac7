import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../support/wait.js";
import { Link } from "./link.js";

test("a link whose delay ends keeps the order of what passes", async (t) => {
  let received = "";
  const server = createServer((socket) => socket.on("data", (chunk: Buffer) => (received += chunk.toString())).on("error", () => undefined));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const link = await Link.to(() => (server.address() as AddressInfo).port);
  const client = connect(link.port, "127.0.0.1");
  t.after(async () => {
    client.destroy();
    await link.close();
    server.close();
  });
  await once(client, "connect");
  link.delay(100);
  client.write("1");
  await sleep(30);
  link.heal();
  client.write("2");
  await sleep(5);
  client.write("3");
  await until(() => received.length === 3);
  assert.equal(received, "123");
});
