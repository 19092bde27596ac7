import { createRequire } from "node:module";
import type { Class } from "../contract/descriptor.js";
import { isPlainObject } from "./settings.js";

interface TypeMetadata {
  readonly typeFunction?: (...args: never[]) => unknown;
  readonly options?: { readonly discriminator?: unknown };
}

/** As far as it is read of class-transformer's metadata, which its public interface does not show. */
interface MetadataStorage {
  findTypeMetadata(target: Class, property: string): TypeMetadata | undefined;
  getExposedMetadatas(target: Class): readonly unknown[];
  getExcludedMetadatas(target: Class): readonly unknown[];
  getStrategy(target: Class): string;
  readonly _transformMetadatas: ReadonlyMap<Class, unknown>;
}

export interface ClassTransformer {
  readonly storage: MetadataStorage | null;
  plainToInstance(type: Class, plain: unknown): object;
}

/** The optional package, or null where it is not installed. */
export function loadClassTransformer(): ClassTransformer | null {
  const require = createRequire(import.meta.url);
  const load = <T>(path: string): T | null => {
    try {
      return require(path) as T;
    } catch (error) {
      if ((error as { code?: unknown }).code === "MODULE_NOT_FOUND" || (error as { code?: unknown }).code === "ERR_PACKAGE_PATH_NOT_EXPORTED") return null;
      throw error;
    }
  };
  const entry = load<Pick<ClassTransformer, "plainToInstance">>("class-transformer");
  if (entry === null) return null;
  const storage = load<{ defaultMetadataStorage?: MetadataStorage }>("class-transformer/cjs/storage.js")?.defaultMetadataStorage ?? null;
  return { storage, plainToInstance: (type, plain) => entry.plainToInstance(type, copyPlain(plain)) };
}

/** What a property is made into, by `@Type`: nothing said, a plain type, or something only class-transformer itself can do. */
export function nestedType(storage: MetadataStorage, type: Class, property: string): unknown {
  const metadata = storage.findTypeMetadata(type, property);
  if (metadata === undefined) return undefined;
  const { typeFunction, options } = metadata;
  return typeFunction === undefined || typeFunction.length > 0 || options?.discriminator !== undefined ? null : typeFunction();
}

/** True where `@Transform`, `@Expose` or `@Exclude` say how an instance is made. */
export function hasTransforms(storage: MetadataStorage, type: Class): boolean {
  if (storage.getExposedMetadatas(type).length > 0 || storage.getExcludedMetadatas(type).length > 0) return true;
  for (let level: unknown = type; typeof level === "function"; level = Object.getPrototypeOf(level)) {
    if (storage._transformMetadatas.has(level as unknown as Class) || storage.getStrategy(level as unknown as Class) !== "none") return true;
  }
  return false;
}

/** Values of `@Type(() => Date)` and the like. Objects are left as they are, for the rules to refuse. */
export const PRIMITIVES: ReadonlyMap<unknown, (value: unknown) => unknown> = new Map<unknown, (value: unknown) => unknown>([
  [String, (value) => String(value)],
  [Number, (value) => Number(value)],
  [Boolean, (value) => Boolean(value)],
  [Date, (value) => new Date(value as string | number)],
]);

/** class-transformer removes discriminators from its input, which belongs to the caller. */
function copyPlain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyPlain);
  if (!isPlainObject(value)) return value;
  const entries = Object.entries(value).filter(([key]) => key !== "__proto__");
  return Object.fromEntries(entries.map(([key, item]) => [key, copyPlain(item)]));
}
