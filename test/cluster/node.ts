import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { chimpbaseMesh, createHost, service } from "@chimpbase/mesh";
import type { CallOptions, Context, MeshOptions } from "@chimpbase/mesh";
import { setClock } from "./clock.js";
import { serveCommands } from "./process.js";
import type { About, LoadReport, NodeConfig, NodeCommands, Route } from "./protocol.js";

/** One node of a test cluster: a process that does what its parent says over IPC. */
const config = JSON.parse(process.env["NODE_CONFIG"]!) as NodeConfig;
const received: string[] = [];
const gone: string[] = [];
setClock(config.clockOffsetMs ?? 0);

function note(line: string): void {
  if (config.logLevel !== undefined) process.stderr.write(line);
  const { msg, peer } = JSON.parse(line) as { msg: string; peer?: string };
  if (msg === "mesh peer gone") gone.push(peer!);
}

const probe = service({
  name: "probe",
  version: 1,
  actions: {
    whoami: async (ctx: Context) => ctx.mesh.nodeId(),
    sleep: async (ctx: Context, args: { ms: number }) => {
      received.push("sleeping");
      await sleep(args.ms, undefined, { signal: ctx.signal });
      return ctx.mesh.nodeId();
    },
    about: async (ctx: Context): Promise<About> => ({
      nodeId: ctx.mesh.nodeId(), deadline: ctx.deadline, level: ctx.level, meta: ctx.meta, caller: ctx.caller, clockMs: Date.now(),
    }),
    relay: async (ctx: Context, { nodeIds, action, args }: Route): Promise<unknown> => {
      const [nodeId, ...rest] = nodeIds;
      const [name, given] = rest.length === 0 ? [action, args] : ["v1.probe.relay", { nodeIds: rest, action, args }];
      return ctx.mesh.call(name, given, { nodeId: nodeId!, timeoutMs: 60_000 });
    },
    untilAborted: async (ctx: Context) => {
      received.push("waiting");
      await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      received.push(`aborted: ${(ctx.signal.reason as Error).name}`);
    },
    tell: async (ctx: Context, args: { event: string; payload: unknown }) => ctx.mesh.emit(args.event, args.payload),
  },
  events: {
    "traced": async (ctx: Context) => void received.push(`traced ${JSON.stringify(ctx.meta)}`),
    "news": async (_ctx: Context, payload: string) => void received.push(`news ${payload}`),
    "order.paid": { balanced: true, handler: async (_ctx: Context, payload: string) => void received.push(`paid ${payload}`) },
  },
});

const reports = service({ name: "reports", version: 1, actions: { build: async (ctx: Context) => ctx.mesh.nodeId() } });

const host = createHost({
  name: config.name,
  database: config.database,
  server: { port: 0, host: "127.0.0.1" },
  secrets: { values: { MESH_TOKEN: "cluster", ...config.secrets } },
  logger: { level: config.logLevel ?? "info", write: note },
});
host.register(chimpbaseMesh({
  services: [probe], meshToken: "MESH_TOKEN", advertisedUrl: "http://127.0.0.1:0", ...config.mesh as Partial<MeshOptions>,
}));

/** Calls without end; nothing of them crosses to the parent but the sum. */
class Load {
  #ended = false;
  #calls = 0;
  readonly #failures: string[] = [];
  readonly #callers: readonly Promise<void>[];

  constructor(name: string, atOnce: number, options: CallOptions | undefined) {
    this.#callers = Array.from({ length: atOnce }, () => this.#callOnAndOn(name, options));
  }

  async end(): Promise<LoadReport> {
    this.#ended = true;
    await Promise.all(this.#callers);
    return { calls: this.#calls, failures: this.#failures };
  }

  async #callOnAndOn(name: string, options: CallOptions | undefined): Promise<void> {
    for (; !this.#ended; this.#calls++) {
      await host.mesh.call(name, {}, options).catch((error: Error) => this.#failures.push(error.message));
      await turn();
    }
  }
}

async function cancelled(name: string, args: unknown, afterMs: number, options?: CallOptions): Promise<string> {
  const signal = AbortSignal.timeout(afterMs);
  return host.mesh.call(name, args, { ...options, signal }).then(() => "done", (error: { code: string }) => error.code);
}

let load: Load | undefined;

serveCommands<NodeCommands>({
  start: async () => {
    await host.start();
    return { nodeId: host.nodeId, url: host.url! };
  },
  stop: () => host.stop(),
  call: (name, args, options) => host.mesh.call(name, args, options),
  cancelled,
  beginLoad: async (name, atOnce, options) => void (load = new Load(name, atOnce, options)),
  endLoad: () => load!.end(),
  emit: (event, payload, options) => host.mesh.emit(event, payload, options),
  peers: async () => host.mesh.peers(),
  waitFor: (names, options) => host.mesh.waitFor(names, options),
  addReports: () => host.mesh.register(reports),
  removeReports: () => host.mesh.unregister("v1.reports"),
  received: async () => received,
  gone: async () => gone,
});
