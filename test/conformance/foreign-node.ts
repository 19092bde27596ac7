import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

// A node of another make: node:http, the basic form of request, and nothing of this package. Two paths beside that of
// RPC let a test make it call somebody, and tell what it was asked.

type Answer = (response: ServerResponse, args: unknown, incoming: IncomingMessage) => void;

const seen: object[] = [];
const send = (response: ServerResponse, status: number, body: unknown): void =>
  void response.writeHead(status, { "content-type": "application/json" }).end(typeof body === "string" ? body : JSON.stringify(body));

const ACTIONS: Readonly<Record<string, Answer>> = {
  "v1.old.echo": (response, args) => send(response, 200, { ok: true, result: args }),
  "v1.old.broken": (response) => send(response, 500, { ok: false, error: "old and broken" }),
  "v1.old.missing": (response) => send(response, 404, { ok: false, error: "mesh action not found: v1.old.missing" }),
  "v1.old.html": (response) => send(response, 200, "<html>welcome</html>"),
  "v1.old.half": (response) => send(response, 200, '{"ok":true,"result":'),
  "v1.old.silent": (response) => void response.writeHead(200).end(),
  "v1.old.moved": (response, _args, incoming) => void response.writeHead(307, { location: `http://${incoming.headers.host ?? ""}/elsewhere` }).end(),
  "v1.old.hang": () => undefined,
  "v1.old.reset": (response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write('{"ok":true,', () => response.socket?.resetAndDestroy());
  },
  "v1.old.chunks": (response, args) => {
    const text = JSON.stringify({ ok: true, result: args });
    response.writeHead(200, { "content-type": "application/json" });
    for (const character of text) response.write(character);
    response.end();
  },
  "v1.old.slow": (response, args) => {
    const text = JSON.stringify({ ok: true, result: args });
    response.write(text.slice(0, 5));
    setTimeout(() => response.end(text.slice(5)), 100);
  },
};

async function textOf(message: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of message) text += String(chunk);
  return text;
}

interface Task {
  readonly url: string;
  readonly token: string;
  readonly body: object;
}

/** Calls a node as this one knows it: token, and the four fields. */
function ask({ url, token, body }: Task): Promise<object> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "x-chimpbase-mesh-token": token, "x-chimpbase-mesh-caller": "old-node", "x-chimpbase-mesh-timeout": "2000" };
    const outgoing = request(url, { method: "POST", headers }, (answer) => {
      textOf(answer).then((text) => resolve({ status: answer.statusCode, text }), reject);
    });
    outgoing.on("error", reject).end(JSON.stringify(body));
  });
}

const sockets = new Map<object, number>();

const server = createServer((incoming, response) => {
  void textOf(incoming).then(async (text) => {
    if (incoming.url === "/ask") return send(response, 200, await ask(JSON.parse(text) as Task));
    if (incoming.url === "/seen") return send(response, 200, seen);
    const connection = sockets.get(incoming.socket) ?? sockets.size;
    sockets.set(incoming.socket, connection);
    seen.push({ url: incoming.url, method: incoming.method, headers: incoming.headers, text, connection });
    const { actionName, args } = JSON.parse(text) as { actionName: string; args: unknown };
    (ACTIONS[actionName] ?? ACTIONS["v1.old.missing"])?.(response, args, incoming);
  });
});

server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port, actions: Object.keys(ACTIONS) })}\n`);
});
process.on("disconnect", () => process.exit(0));
