import { chimpbaseMesh, createHost, onStart, type Context, type Host } from "@chimpbase/mesh";
import { clock, each } from "../measure.js";
import type { CallKind, Message, Running, Setup } from "../roles.js";
import { usage } from "./usage.js";
import { AdderService, BystanderService, NewsService, WorkService, WritingService } from "./services.js";

interface Node {
  readonly host: Host;
  readonly ctx: Context;
  /** When it began to look for jobs, on the common clock. */
  readonly since: number;
}

/** Literals, as in most programs: a name put together for each call would have to be hashed for each. */
const ACTIONS: Readonly<Record<CallKind, string>> = {
  add: "v1.adder.add",
  addLater: "v1.adder.addLater",
  addChecked: "v1.adder.addChecked",
  addUnchecked: "v1.adder.addUnchecked",
  echo: "v1.adder.echo",
  slow: "v1.adder.slow",
};
const EMITS_UNDER_WAY = 500;
/** The same for graphile-worker and pg-boss. */
const POOL = 30;
const HANDLERS = 24;

export async function startNode(setup: Setup, services: readonly object[], remote = false): Promise<Node> {
  const { databaseUrl, token } = setup;
  let ctx!: Context;
  let since = NaN;
  const host = createHost({
    name: "bench",
    database: { url: databaseUrl, poolSize: POOL },
    worker: { concurrency: HANDLERS },
    server: remote ? { port: 0 } : false,
    secrets: { values: { MESH_TOKEN: token } },
    logger: { level: "error", write: (line) => void process.stderr.write(line) },
  });
  const transport = remote ? { meshToken: "MESH_TOKEN" } : { transport: "local-only" as const };
  host.register(chimpbaseMesh({ services, ...transport }), onStart((context) => {
    [ctx, since] = [context, clock()];
  }));
  await host.start();
  return { host, ctx, since };
}

export async function callee(setup: Setup): Promise<Running> {
  process.env["HOSTNAME"] = "127.0.0.1";
  const { host } = await startNode(setup, [AdderService], true);
  return { stop: () => host.stop() };
}

export async function caller(setup: Setup): Promise<Running> {
  process.env["HOSTNAME"] = "127.0.0.1";
  const { host } = await startNode(setup, [BystanderService], true);
  await host.mesh.waitFor("v1.adder");
  return { call: (kind, args) => host.mesh.call(ACTIONS[kind], args), stop: () => host.stop() };
}

export async function local(setup: Setup): Promise<Running> {
  const { host } = await startNode(setup, [AdderService]);
  return { call: (kind, args) => host.mesh.call(ACTIONS[kind], args), stop: () => host.stop() };
}

/** The emitting host lives as long as the role, consumers come and go; a process uses the one or the other. */
export async function queue(setup: Setup): Promise<Running> {
  let emitter: Promise<Node> | undefined;
  let consumingSince = NaN;
  const emittingNode = (): Promise<Node> => (emitter ??= startNode(setup, [BystanderService]));
  const emit = async (message: Message): Promise<void> => (await emittingNode()).host.mesh.emit("bench.work", message, { balanced: true });
  const consume = async (handler: (message: Message) => void): Promise<() => Promise<void>> => {
    const { host, since } = await startNode(setup, [setup.effects ? new WritingService(handler) : new WorkService(handler)]);
    consumingSince = since;
    return () => host.stop();
  };
  let known = false;
  return {
    add: emit,
    consume,
    async load(from, to) {
      // A group exists from the first start of its service on.
      if (!known) await (await consume(() => undefined))();
      known = true;
      await each(from, to, EMITS_UNDER_WAY, (i) => emit({ i }));
      await (await emittingNode()).host.stop();
      emitter = undefined;
    },
    special: { consumingSince: async () => consumingSince },
    stop: async () => (await emitter)?.host.stop(),
  };
}

/** Emits to broadcast handlers alone; `variant` is `plain` where balanced groups may get the events too, as they may unless told otherwise. */
export async function bus(setup: Setup): Promise<Running> {
  let publisher: Promise<Node> | undefined;
  const options = setup.variant === "plain" ? {} : { balanced: false };
  return {
    add: async (message) => (await (publisher ??= startNode(setup, [BystanderService]))).host.mesh.emit("bench.news", message, options),
    async consume(handler) {
      const { host } = await startNode(setup, [new NewsService(handler)]);
      return () => host.stop();
    },
    stop: async () => (await publisher)?.host.stop(),
  };
}

const WRITE = "INSERT INTO effects (i) VALUES (?1)";
const WRITE_AND_NOTIFY = "WITH written AS (INSERT INTO effects (i) VALUES (?1) RETURNING i) SELECT pg_notify('bench_outbox', '') FROM written";

/** Transactions that write a row, `concurrency` at a time; with `emit` each emits, and with `notify` also notifies, by the statement that writes. */
export async function outbox(setup: Setup): Promise<Running> {
  const consumer = await startNode(setup, [new WorkService(() => undefined)]);
  await consumer.host.stop();
  const { host, ctx } = await startNode(setup, [BystanderService]);
  const transaction = (i: number, emit: boolean, notify: boolean): Promise<void> =>
    ctx.transaction(async (tx) => {
      await tx.db.query(notify ? WRITE_AND_NOTIFY : WRITE, [i]);
      if (emit) await tx.mesh.emit("bench.work", { i }, { balanced: true });
    });
  return {
    special: {
      async transactions({ from, to, concurrency, emit, notify }) {
        const started = performance.now();
        await each(from!, to!, concurrency!, (i) => transaction(i, emit === 1, notify === 1));
        return { ms: performance.now() - started };
      },
    },
    stop: () => host.stop(),
  };
}

export async function idle(setup: Setup): Promise<Running> {
  process.env["HOSTNAME"] = "127.0.0.1";
  const { host } = await startNode(setup, [AdderService, new WorkService(() => undefined), new NewsService(() => undefined)], true);
  return { special: { usage }, stop: () => host.stop() };
}
