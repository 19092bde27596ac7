import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "undici";

/** The floor: node:http and JSON with nothing around them, one POST a call, called by undici over kept-alive connections. */
const ACTIONS = {
  "/add": ({ a, b }) => ({ sum: a + b }),
  "/echo": (args) => args,
  async "/slow"({ ms }) {
    await sleep(ms);
    return { sum: 42 };
  },
};

export async function callee({ nodes: [{ port }] }) {
  const server = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", async () => {
      const result = await ACTIONS[request.url](JSON.parse(Buffer.concat(chunks).toString()));
      response.setHeader("content-type", "application/json").end(JSON.stringify(result));
    });
  });
  await once(server.listen(port, "127.0.0.1"), "listening");
  return {
    async stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

export async function caller({ nodes: [{ port }] }) {
  const pool = new Pool(`http://127.0.0.1:${port}`, { connections: 64 });
  return {
    async call(kind, args) {
      const { body } = await pool.request({ path: `/${kind}`, method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(args) });
      return body.json();
    },
    stop: () => pool.close(),
  };
}
