import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { sourcePath } from "./systems.js";

/** The peers, by the lock file beside them, where others or none are installed. Their install scripts do not run. */
export async function installPeers(): Promise<void> {
  const [wanted, installed] = await Promise.all([lockedPackages("package-lock.json"), lockedPackages("node_modules/.package-lock.json")]);
  if (installed !== null && holds(wanted!, installed)) return;
  process.stderr.write("installing the peers into examples/benchmark/node_modules\n");
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = spawn("npm", args, { cwd: sourcePath("."), stdio: ["ignore", "ignore", "inherit"], shell: process.platform === "win32" });
  const [code] = (await once(npm, "exit")) as [number | null];
  if (code !== 0) throw new Error(`the peers could not be installed: npm ci in examples/benchmark ended with ${code}`);
}

interface LockedPackage {
  readonly version: string;
  /** Not for every machine. */
  readonly optional?: boolean;
}

export type Packages = Readonly<Record<string, LockedPackage>>;

/** By path; null where npm has left no such file. */
async function lockedPackages(path: string): Promise<Packages | null> {
  try {
    const { packages } = JSON.parse(await readFile(sourcePath(path), "utf8")) as { readonly packages: Packages };
    return packages;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Whether all that is wanted is installed, in these versions. */
export function holds(wanted: Packages, installed: Packages): boolean {
  return Object.entries(wanted).every(([path, { version, optional }]) => {
    const found = installed[path];
    // The package itself is under no path.
    return path === "" || (found === undefined ? optional === true : found.version === version);
  });
}
