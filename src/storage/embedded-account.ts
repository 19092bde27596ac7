import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { MeshConfigurationError } from "../errors.js";

const run = promisify(execFile);

/** The OS user that the server runs as. */
export interface ServerAccount {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Postgres refuses to run as root. Null where we are not root; else the user `postgres` if there is one, or `nobody`,
 * which every system has.
 */
export async function serverAccount(): Promise<ServerAccount | null> {
  if (process.getuid?.() !== 0) return null;
  for (const name of ["postgres", "nobody"]) {
    const account = await lookUp(name);
    if (account !== null) return account;
  }
  throw new MeshConfigurationError("database.embedded: Postgres does not run as root, and this system has no user postgres or nobody");
}

async function lookUp(name: string): Promise<ServerAccount | null> {
  try {
    const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])]);
    return { name, uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return null;
  }
}

/** Whether `account` gets into a directory: every directory above it counts too. */
export async function mayEnter(directory: string, { uid, gid }: ServerAccount): Promise<boolean> {
  return run("test", ["-x", directory], { uid, gid, cwd: "/" }).then(() => true, () => false);
}
