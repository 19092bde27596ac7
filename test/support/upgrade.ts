import type { Registration } from "@chimpbase/mesh";

/** Takes the protocol `echo`, and sends back what comes, from what came with the request on. */
export const echoUpgrade: Registration = {
  kind: "upgrade", name: "echo", protocol: "echo",
  handler: (_request, socket, head) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    socket.unshift(head);
    socket.pipe(socket);
    return true;
  },
};
