import { MeshConfigurationError } from "../errors.js";
import { suggestion } from "../suggestion.js";

type Source = Readonly<Record<string, unknown>>;

interface Range {
  readonly min: number;
  readonly max: number;
}

/** Reads one object of options. Every complaint names the option with its path, the value, and what is expected. */
export class OptionReader {
  readonly #path: string;
  readonly #source: Source;

  /** Refuses what is not an object, and keys that are not in `known`. */
  constructor(path: string, source: unknown, known: readonly string[]) {
    this.#path = path;
    if (typeof source !== "object" || source === null || Array.isArray(source)) {
      throw new MeshConfigurationError(`${path === "" ? "the options" : `option "${path}"`} must be an object; got ${show(source)}`);
    }
    this.#source = source as Source;
    for (const key of Object.keys(source)) {
      if (!known.includes(key)) throw new MeshConfigurationError(`unknown option "${this.#name(key)}"; ${suggestion(key, known)}`);
    }
  }

  has(key: string): boolean {
    return this.#source[key] !== undefined;
  }

  raw(key: string): unknown {
    return this.#source[key];
  }

  integer(key: string, fallback: number, { min, max }: Range): number {
    const value = this.#source[key] ?? fallback;
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value;
    throw this.refuse(key, `must be a whole number from ${min} to ${max}`);
  }

  string(key: string): string | undefined {
    const value = this.#source[key];
    if (value === undefined || (typeof value === "string" && value !== "")) return value;
    throw this.refuse(key, "must be a string that is not empty");
  }

  /** For values that may hold a password: they are in no message. */
  url(key: string): string | undefined {
    const value = this.#source[key];
    if (value === undefined || isPostgresUrl(value)) return value;
    throw new MeshConfigurationError(`option "${this.#name(key)}" must be a URL that begins with postgres:// (its value is not shown: it may hold a password)`);
  }

  refuse(key: string, expected: string): MeshConfigurationError {
    return new MeshConfigurationError(`option "${this.#name(key)}" ${expected}; got ${show(this.#source[key])}`);
  }

  #name(key: string): string {
    return this.#path === "" ? key : `${this.#path}.${key}`;
  }
}

export function isPostgresUrl(value: unknown): value is string {
  return typeof value === "string" && /^postgres(ql)?:\/\//.test(value);
}

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  return typeof value === "object" && value !== null ? (Array.isArray(value) ? "an array" : "an object") : String(value);
}
