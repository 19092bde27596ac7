import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { sourcePath } from "./systems.js";

/** The peers, by the lock file beside them, where they are not installed yet. Their install scripts do not run. */
export async function installPeers(): Promise<void> {
  if (existsSync(sourcePath("node_modules/.package-lock.json"))) return;
  process.stderr.write("installing the peers into examples/benchmark/node_modules\n");
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = spawn("npm", args, { cwd: sourcePath("."), stdio: ["ignore", "ignore", "inherit"], shell: process.platform === "win32" });
  const [code] = (await once(npm, "exit")) as [number | null];
  if (code !== 0) throw new Error(`the peers could not be installed: npm ci in examples/benchmark ended with ${code}`);
}
