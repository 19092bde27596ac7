import { createHost, cron, onStart, worker } from "@chimpbase/mesh";

// A process for embedded.test.ts: starts on an embedded Postgres, uses it, stops, and must then end by itself.
const host = createHost({ server: { port: 0 }, database: { embedded: true }, logger: { level: "silent" } });
const handled = new Promise<unknown>((resolve) => host.register(worker("greetings", (_ctx, payload) => resolve(payload))));
let directory = "";
host.register(
  cron("tick", "* * * * *", () => undefined),
  onStart(async (ctx) => {
    const [row] = await ctx.db.query<{ directory: string }>("SELECT current_setting('data_directory') AS directory");
    directory = row?.directory ?? "";
    await ctx.queue.enqueue("greetings", "hello");
    if (process.argv[2] === "fail") throw new Error("no warm-up");
  }),
);
try {
  await host.start();
  process.stdout.write(JSON.stringify({ directory, handled: await handled }));
  if (process.argv[2] === "leave") process.exit(0);
  await host.stop();
} catch (error) {
  process.stdout.write(JSON.stringify({ directory, error: (error as Error).message }));
}
