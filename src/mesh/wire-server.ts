import { STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { TimerWheel } from "../pipeline/timer-wheel.js";
import type { HostEnv } from "../contract/registration.js";
import type { CallerConnections } from "./caller-connections.js";
import { CALLER_HEADER, idOrNull } from "./rpc-codec.js";
import type { RpcDesk } from "./rpc-desk.js";
import type { RequestGate } from "./rpc-gate.js";
import { UNAUTHORIZED, type RpcAnswer } from "./rpc-response.js";
import { SIGNATURE_HEADER } from "./rpc-signature.js";
import { CalleeWire } from "./wire-callee.js";
import { TARGET_HEADER, WIRE_PROTOCOL } from "./wire-frames.js";
import { setUpForLines } from "./wire-writer.js";

export interface WireServerOptions {
  readonly nodeId: string;
  readonly gate: RequestGate;
  readonly desk: RpcDesk;
  readonly connections: CallerConnections;
  readonly wheel: TimerWheel;
  readonly bodyTimeoutMs: number;
  readonly refuses: () => boolean;
}

const SWITCHING = `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${WIRE_PROTOCOL}\r\n\r\n`;

/** Wires that peers have made to this node. */
export class WireServer {
  readonly #options: WireServerOptions;
  readonly #wires = new Set<CalleeWire>();

  constructor(options: WireServerOptions) {
    this.#options = options;
  }

  /** Makes a wire of an upgrade, or answers why not. The token is shown once, for all that comes on the wire. */
  take(request: IncomingMessage, socket: Duplex, head: Buffer, env: HostEnv): void {
    // The caller may have given up while a route before this one looked at the request.
    if (socket.destroyed) return;
    socket.on("error", ignore);
    const refusal = this.#refusal(request, env);
    if (refusal !== null) return refuse(socket, refusal);
    setUpForLines(socket);
    socket.write(SWITCHING);
    const { desk, wheel, bodyTimeoutMs } = this.#options;
    const wire = new CalleeWire(socket, { desk, wheel, env, lineTimeoutMs: bodyTimeoutMs, callerNodeId: idOrNull(request.headers[CALLER_HEADER]) });
    this.#wires.add(wire);
    this.#options.connections.note(socket);
    socket.once("close", () => this.#wires.delete(wire));
    wire.start(head);
  }

  /** Those that are left: their callers are told up to which request they have been heard. */
  close(): void {
    for (const wire of this.#wires) wire.close();
  }

  #refusal(request: IncomingMessage, env: HostEnv): RpcAnswer | null {
    const { gate, desk, nodeId } = this.#options;
    const { [SIGNATURE_HEADER]: signature, [TARGET_HEADER]: target = nodeId } = request.headers;
    // A signature covers one request: it could not vouch for what comes on the wire.
    if (signature !== undefined || gate.admit(request, env.log).verdict !== "admitted") return UNAUTHORIZED;
    if (target !== nodeId) return desk.wrongNode();
    return this.#options.refuses() ? desk.draining() : null;
  }
}

function refuse(socket: Duplex, { status, body }: RpcAnswer): void {
  const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`, "content-type: application/json", `content-length: ${Buffer.byteLength(body)}`, "connection: close"];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
}

function ignore(): void {}
