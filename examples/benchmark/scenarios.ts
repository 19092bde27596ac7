import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Pool } from "undici";
import { chimpbaseMesh, createHost, onStart, type Context, type Host } from "@chimpbase/mesh";
import { measureRate, percentiles, type Rate } from "./measure.js";
import { AdderService, SinkService } from "./services.js";

export interface Line {
  readonly scenario: string;
  readonly ours: string;
  readonly floor?: string;
}

export interface Settings {
  readonly databaseUrl: string;
  readonly roundMs: number;
}

const perSecond = (rate: number): string => `${Math.round(rate).toLocaleString("en")}/s`;
const latency = ({ p50, p99 }: Pick<Rate, "p50" | "p99">): string => `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`;

async function withHost<T>(databaseUrl: string, services: object[], local: boolean, use: (host: Host, ctx: Context) => Promise<T>): Promise<T> {
  let ctx!: Context;
  const host = createHost({ name: "bench", database: databaseUrl, server: local ? false : { port: 0 }, logger: { level: "error" } });
  host.register(
    chimpbaseMesh({ services, ...(local ? { transport: "local-only" } : { meshToken: "MESH_TOKEN" }) }),
    onStart((context) => void (ctx = context)),
  );
  await host.start();
  try {
    return await use(host, ctx);
  } finally {
    await host.stop();
  }
}

function checkSum({ sum }: { sum: number }): void {
  if (sum !== 42) throw new Error(`wrong sum: ${sum}`);
}

export async function localCalls({ databaseUrl, roundMs }: Settings): Promise<Line[]> {
  return withHost(databaseUrl, [AdderService], true, async (host) => {
    const call = async (): Promise<void> => checkSum(await host.mesh.call("v1.adder.add", { a: 40, b: 2 }));
    const { rate } = await measureRate(call, 64, roundMs);
    return [{ scenario: "local call, 64 at a time", ours: perSecond(rate) }];
  });
}

export async function remoteCalls({ databaseUrl, roundMs }: Settings): Promise<Line[]> {
  const child = spawn(process.execPath, [fileURLToPath(new URL("./callee.js", import.meta.url))], {
    env: { ...process.env, DATABASE_URL: databaseUrl },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [ready] = (await once(child.stdout, "data")) as [Buffer];
  const floor = new Pool((JSON.parse(ready.toString()) as { floor: string }).floor, { connections: 64 });
  try {
    return await withHost(databaseUrl, [SinkService], false, async (host) => {
      await host.mesh.waitFor("v1.adder");
      const lines: Line[] = [];
      for (const concurrency of [1, 64, 256]) {
        const call = async (): Promise<void> => checkSum(await host.mesh.call("v1.adder.add", { a: 40, b: 2 }));
        const ours = await measureRate(call, concurrency, roundMs);
        const bare = await measureRate(() => bareCall(floor), concurrency, roundMs);
        lines.push({
          scenario: `remote call, ${concurrency} at a time`,
          ours: `${perSecond(ours.rate)}, ${latency(ours)}`,
          floor: `${perSecond(bare.rate)}, ${latency(bare)} (${(ours.rate / bare.rate).toFixed(2)}×)`,
        });
      }
      return lines;
    });
  } finally {
    await floor.close();
    child.kill("SIGTERM");
    await once(child, "exit");
  }
}

async function bareCall(pool: Pool): Promise<void> {
  const body = JSON.stringify({ a: 40, b: 2 });
  const answer = await pool.request({ path: "/", method: "POST", headers: { "content-type": "application/json" }, body });
  checkSum((await answer.body.json()) as { sum: number });
}

/** From the return of `emit`'s commit to the first line of the handler. */
export async function eventLatency({ databaseUrl }: Settings): Promise<Line[]> {
  const lines: Line[] = [];
  for (const balanced of [true, false]) {
    const sink = new SinkService();
    const waits: number[] = [];
    await withHost(databaseUrl, [sink], true, async (host) => {
      for (let i = 0; i < 300; i++) {
        const arrived = new Promise<number>((resolve) => (sink.onDelivery = () => resolve(performance.now())));
        const emitted = host.mesh.emit(balanced ? "bench.balanced" : "bench.broadcast", { i }).then(() => performance.now());
        waits.push(Math.max(0, (await arrived) - (await emitted)));
      }
    });
    const kind = balanced ? "balanced" : "broadcast";
    lines.push({ scenario: `${kind} event, commit to handler, one by one`, ours: latency(percentiles(waits)) });
  }
  return lines;
}

export async function eventRates({ databaseUrl }: Settings): Promise<Line[]> {
  const count = 20_000;
  const lines: Line[] = [];
  for (const balanced of [true, false]) {
    const sink = new SinkService();
    await withHost(databaseUrl, [sink], true, async (host) => {
      let left = count;
      const all = new Promise<void>((resolve) => (sink.onDelivery = () => --left === 0 && resolve()));
      const started = performance.now();
      const emits = Array.from({ length: count }, (_, i) => i);
      const emitter = async (): Promise<void> => {
        while (emits.length > 0) await host.mesh.emit(balanced ? "bench.balanced" : "bench.broadcast", { i: emits.pop() });
      };
      await Promise.all(Array.from({ length: 500 }, emitter));
      await all;
      const rate = count / ((performance.now() - started) / 1_000);
      const kind = balanced ? "balanced" : "broadcast";
      lines.push({ scenario: `${kind} events, emitted 500 at a time and handled`, ours: perSecond(rate) });
    });
  }
  return lines;
}

/** Statements that Postgres itself counts (pg_stat_statements) over half a minute in which nobody calls or emits. */
export async function idleCost({ databaseUrl }: Settings): Promise<Line[]> {
  return withHost(databaseUrl, [AdderService, SinkService], false, async (_host, ctx) => {
    const counted = await ctx.db.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").then(() => true, () => false);
    const seconds = 30;
    await pause(2_000);
    const cpuBefore = process.cpuUsage();
    const before = counted ? await statements(ctx) : NaN;
    await pause(seconds * 1_000);
    const { user, system } = process.cpuUsage(cpuBefore);
    const rate = counted ? `${(((await statements(ctx)) - before) / seconds).toFixed(1)} statements/s` : "statements not counted (no pg_stat_statements)";
    return [{ scenario: "idle node", ours: `${rate}, ${((user + system) / 1e4 / seconds).toFixed(1)} % of a core` }];
  });
}

async function statements(ctx: Context): Promise<number> {
  const [row] = await ctx.db.query<{ calls: number }>(`
    SELECT sum(calls)::int AS calls FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid WHERE datname = current_database()`);
  return row!.calls;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
