import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** The floor of calls: JSON lines both ways on one socket, what comes in one turn of the event loop in one write, and nothing else. */
const ACTIONS = {
  add: ({ a, b }) => ({ sum: a + b }),
  echo: (args) => args,
  async slow({ ms }) {
    await sleep(ms);
    return { sum: 42 };
  },
};

export async function callee({ nodes: [{ port }] }) {
  const sockets = new Set();
  const server = createServer((socket) => {
    sockets.add(socket.setNoDelay().on("close", () => sockets.delete(socket)).on("error", () => undefined));
    const send = writer(socket);
    onLines(socket, async ([id, kind, args]) => send([id, await ACTIONS[kind](args)]));
  });
  await once(server.listen(port, "127.0.0.1"), "listening");
  return {
    async stop() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

export async function caller({ nodes: [{ port }] }) {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await once(socket, "connect");
  const send = writer(socket);
  const waiting = new Map();
  let last = 0;
  onLines(socket, ([id, result]) => {
    waiting.get(id)(result);
    waiting.delete(id);
  });
  return {
    call: (kind, args) =>
      new Promise((resolve) => {
        waiting.set(++last, resolve);
        send([last, kind, args]);
      }),
    stop: async () => socket.destroy(),
  };
}

function writer(socket) {
  let lines = "";
  const flush = () => {
    socket.write(lines);
    lines = "";
  };
  return (message) => {
    if (lines === "") process.nextTick(flush);
    lines += `${JSON.stringify(message)}\n`;
  };
}

function onLines(socket, take) {
  let rest = "";
  socket.setEncoding("utf8").on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) take(JSON.parse(line));
  });
}
