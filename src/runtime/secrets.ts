import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { MeshConfigurationError } from "../errors.js";
import { parseEnvFile } from "./env-file.js";

const DEFAULT_ENV_FILE = ".env";
const DEFAULT_DIRECTORY = "/run/secrets";
const MAX_FILE_BYTES = 1024 * 1024;
const NAME = /^[A-Za-z0-9_.-]{1,255}$/;

export interface SecretSources {
  readonly values?: Readonly<Record<string, string | undefined>> | undefined;
  /** Default `".env"`. A file other than that must exist. */
  readonly envFile?: string | undefined;
  /** One file per secret. Default `"/run/secrets"`. A directory other than that must exist. */
  readonly dir?: string | undefined;
}

export interface Secrets {
  /**
   * First hit wins: values, environment, env file, directory. Null where no source has it. Throws
   * `MeshConfigurationError` for a name that is not made of letters, digits, `_`, `.` and `-`.
   */
  get(name: string): string | null;
}

/** Reads the env file. Throws `MeshConfigurationError` where a named file or directory cannot be read; values are in no message. */
export function openSecrets(sources: SecretSources = {}, environment: NodeJS.ProcessEnv = process.env): Secrets {
  const values = sources.values ?? {};
  const fromFile = readEnvFile(sources.envFile ?? DEFAULT_ENV_FILE);
  const directory = sources.dir ?? DEFAULT_DIRECTORY;
  checkDirectory(directory);
  const fromDirectory = new Map<string, string>();

  return {
    get(name) {
      if (!NAME.test(name) || name.includes("..")) {
        throw new MeshConfigurationError(`"${name}" is no name of a secret: letters, digits, "_", "-" and single "." are allowed`);
      }
      return ownString(values, name) ?? ownString(environment, name) ?? fromFile.get(name) ?? fromDirectory.get(name) ?? read(name);
    },
  };

  /** Found ones are kept; a name without a file is looked for again, so that names from outside fill no memory. */
  function read(name: string): string | null {
    const text = readSecretFile(join(directory, name), name);
    if (text !== null) fromDirectory.set(name, text);
    return text;
  }
}

function ownString(source: Readonly<Record<string, string | undefined>>, name: string): string | undefined {
  const value = Object.hasOwn(source, name) ? source[name] : undefined;
  return typeof value === "string" ? value : undefined;
}

function readEnvFile(path: string): Map<string, string> {
  try {
    return parseEnvFile(readSmallFile(path));
  } catch (cause) {
    if (path === DEFAULT_ENV_FILE && isMissing(cause)) return new Map();
    throw new MeshConfigurationError(`option "secrets.envFile": ${path} cannot be read; correct the path or leave the option out`, { cause });
  }
}

function checkDirectory(path: string): void {
  if (path === DEFAULT_DIRECTORY || statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return;
  throw new MeshConfigurationError(`option "secrets.dir": ${path} is no directory; correct the path or leave the option out`);
}

function readSecretFile(path: string, name: string): string | null {
  try {
    return readSmallFile(path).replace(/\r?\n$/, "");
  } catch (cause) {
    if (isMissing(cause)) return null;
    throw new MeshConfigurationError(`the file of the secret "${name}" cannot be read`, { cause });
  }
}

function readSmallFile(path: string): string {
  const { size } = statSync(path);
  if (size > MAX_FILE_BYTES) throw new MeshConfigurationError(`${path} is larger than ${MAX_FILE_BYTES} bytes`);
  return readFileSync(path, "utf8");
}

/** Not there, or a directory of that name. */
function isMissing(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "EISDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
}
