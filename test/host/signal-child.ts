import { createHost, onStart, onStop } from "@chimpbase/mesh";

// A process for signals.test.ts: says when it is up, and holds its stop up where told to.
const host = createHost({ server: false, logger: { level: "silent" }, drainTimeoutMs: 60_000 });
const held = process.argv[2] === "hold";
const timer = setInterval(() => undefined, 60_000);
host.register(
  onStart(() => void process.stdout.write("started\n")),
  onStop(async () => {
    process.stdout.write("stopping\n");
    if (held) await new Promise(() => undefined);
    clearInterval(timer);
  }),
);
await host.start({ signals: true });
